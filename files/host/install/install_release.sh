# Make the environment of one MLflow release. Needs: what wheels.sh has, release, known (yes where
# "$here"/modules.txt are the files that a server of this release was seen to load, no where they are
# another's) and "$here"/release.txt.
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
# The server's unit cannot write beside what it loads, and would compile it at each start. To compile
# all would take several times as long; what is listed and not there is passed over.
compile_modules() {
  (
    cd "$folder"/lib/python3*/site-packages
    # Isolated: what a package calls argparse.py there is not Python's.
    xargs -r -d '\n' -P "$(nproc)" -n 200 "$folder/bin/python" -I -m compileall -q -p "$PWD" < "$here/modules.txt" || true
  )
  # Another release may load others, and so do the packages that Python 3.10 gets: to import what
  # the server does compiles them.
  if [ "$known" != yes ] || "$folder/bin/python" -c 'import sys; sys.exit(sys.version_info >= (3, 11))'; then
    "$folder/bin/python" -c "import mlflow.cli, mlflow.server.auth, uvicorn" || true
  fi
}
install_release() {
  install_wheels "$folder" "$here/release.txt" 2>&1 7>&- | uv_now || return
  if [ -z "$uv" ]; then return; fi # pip compiles everything by itself
  now "compile what the server loads" >&7
  sync -f "$folder" > /dev/null 2>&1 7>&- & # begins what is waited for below
  take_compiled
  compile_modules > /dev/null 2>&1 7>&-
}
if ! output=$(install_release); then wheels_failed "$output"; fi
# What Python compiles on a full disk is cut short, without an error.
if [ "$(df -Pk "$folder" | awk 'NR == 2 {print $4}')" -lt 20480 ]; then wheels_failed "No space left on device"; fi
cp "$here/release.txt" "$folder.txt.part"
mv -f "$folder.txt.part" "$folder.txt"
# A host that loses its power may keep the stamp only with all that it stands for.
sync -f "$folder"
touch "$folder/.complete"
if [ ! -e "$root/venv" ]; then ln -sfn "releases/$release" "$root/venv"; fi
exec 6>&- 7>&-
