# Make a small environment of its own. Needs: what wheels.sh has, folder (of the environment, and of
# its lock "$here"/<folder>.txt), digest (of that lock).
rm -rf "${root:?}/$folder"
# uv takes a second for what pip takes ten for. Its wheel stays, for the next server of this host.
install_uv() {
  local pip=("$root/$folder/bin/python" -m pip --quiet --disable-pip-version-check)
  local options=(--no-deps --require-hashes -r "$here/uv.txt")
  awk '/^[a-z]/ {on = /^uv==/} on' "$here/$folder.txt" > "$here/uv.txt"
  if [ ! -s "$here/uv.txt" ]; then return; fi
  "${pip[@]}" install --no-index --find-links "$wheels" "${options[@]}" 2> /dev/null || {
    [ "$sent" != yes ] && rm -f "$wheels"/uv-*.whl && "${pip[@]}" download -d "$wheels" "${options[@]}" &&
      "${pip[@]}" install --no-index --find-links "$wheels" "${options[@]}"
  }
}
make_tools() {
  # With pip, which alone knows which index this host has.
  python3 -m venv "$root/$folder" && install_uv || return
  find_uv || true
  install_wheels "$root/$folder" "$here/$folder.txt"
}
if ! output=$(make_tools 2>&1); then wheels_failed "$output"; fi
echo "$digest" > "$root/$folder/.complete"
exec 6>&-
