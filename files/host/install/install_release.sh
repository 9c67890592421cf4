# Make the environment of one MLflow release. Needs: what wheels.sh has, release, and
# "$here"/release.txt.
# Its stamp is written last: an interrupted installation is made again, never used.
folder=$root/releases/$release
mkdir -p "$root/releases"
rm -rf "$folder"
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
if find_uv; then
  "$uv" venv --quiet --python "$(command -v python3)" "$folder"
else
  warn "uv does not run on this host; installing with pip, which takes longer"
  python3 -m venv "$folder"
fi
# What another server of this host has compiled of the same files; Python takes none of others.
take_compiled() {
  local other
  for other in "$(dirname "$root")"/mlflow-server*/releases/"$release"; do
    if [ -e "$other/.complete" ]; then
      (cd "$other" && find lib -name '*.pyc' -print0 | xargs -0r cp --parents --link -t "$folder") || true
      return
    fi
  done
}
install_release() {
  install_wheels "$folder" "$here/release.txt" 2>&1 7>&- | uv_now || return
  if [ -z "$uv" ]; then return; fi # pip compiles everything by itself
  # The server's unit cannot write beside what it imports, and would compile it at each start. To
  # import it once compiles just that, a third of all; what takes longest is done beside it.
  now "compile what the server imports" >&7
  take_compiled
  {
    "$folder/bin/python" -m compileall -q "$folder"/lib/python3*/site-packages/mlflow/{server,store,protos}
    "$folder/bin/python" -c "import sqlalchemy.orm, alembic.op, fastapi, flask, boto3"
  } > /dev/null 2>&1 7>&- &
  "$folder/bin/python" -c "import mlflow.cli, mlflow.server.auth, uvicorn" > /dev/null 2>&1 7>&- &
  wait
}
if ! output=$(install_release); then wheels_failed "$output"; fi
cp "$here/release.txt" "$folder.txt"
touch "$folder/.complete"
if [ ! -e "$root/venv" ]; then ln -sfn "releases/$release" "$root/venv"; fi
exec 6>&- 7>&-
