# Make the environment of one MLflow release. Needs: root, release, and "$here"/release.txt.
# Its stamp is written last: an interrupted installation is made again, never used.
folder=$root/releases/$release
mkdir -p "$root/releases"
rm -rf "$folder"
uv=$root/tools/bin/uv
exec 7>&1 # where uv_now tells: uv's own output is kept back
# Tell what uv does next, where it says what it has done, and pass on what it says.
uv_now() {
  local line packages
  packages=$(grep -c '==' "$here/release.txt")
  now "uv: fetch $packages packages" >&7
  while IFS= read -r line; do
    case $line in
      Prepared*) now "uv: unpack $packages packages" >&7 ;;
    esac
    printf '%s\n' "$line"
  done
}
if "$uv" --version > /dev/null 2>&1; then
  UV_PYTHON_DOWNLOADS=never "$uv" venv --quiet --python "$(command -v python3)" "$folder"
  install_release() {
    "$uv" pip install --python "$folder/bin/python" --no-deps --require-hashes -r "$here/release.txt" 2>&1 7>&- | uv_now || return
    # The server's unit cannot write beside what it imports, and would compile it at each start. To
    # import it once compiles just that, a third of all; what takes longest is done beside it. pip
    # compiles everything by itself.
    now "compile what the server imports" >&7
    {
      "$folder/bin/python" -m compileall -q "$folder"/lib/python3*/site-packages/mlflow/{server,store,protos}
      "$folder/bin/python" -c "import sqlalchemy.orm, alembic.op, fastapi, flask, boto3"
    } > /dev/null 2>&1 7>&- &
    "$folder/bin/python" -c "import mlflow.cli, mlflow.server.auth, uvicorn" > /dev/null 2>&1 7>&- &
    wait
  }
else
  warn "uv does not run on this host; installing with pip, which takes longer"
  python3 -m venv "$folder"
  install_release() {
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r "$here/release.txt" 2>&1
  }
fi
if ! output=$(install_release); then
  printf '%s\n' "$output"
  case $output in
    *"No space left"*) fail "The disk of the host is full. Free 2 GB, then type ./fab install again." ;;
    *"dns error"* | *"error sending request"* | *"Failed to fetch"* | *"connect error"* | *"Connection"*)
      fail "The host cannot reach the Python package index: no outbound network, DNS or proxy. Allow outbound HTTPS, then type ./fab install again." ;;
  esac
  exit 1
fi
cp "$here/release.txt" "$folder.txt"
touch "$folder/.complete"
if [ ! -e "$root/venv" ]; then ln -sfn "releases/$release" "$root/venv"; fi
exec 7>&-
