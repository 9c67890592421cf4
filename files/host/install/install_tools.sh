# Make a small environment of its own. Needs: what wheels.sh has, folder (of the environment, and of
# its lock "$here"/<folder>.txt), digest (of that lock).
rm -rf "${root:?}/$folder"
# Print uv's wheel, which stays for the next server of this host, where it is one of the lock's.
uv_wheel() {
  local file
  for file in "$wheels"/uv-*.whl; do
    if [ -e "$file" ] && grep -q "sha256:$(sha256sum < "$file" | cut -d' ' -f1)" "$here/uv.txt"; then
      echo "$file"
      return
    fi
  done
  return 1
}
# With pip, which alone knows which index this host has: Debian's, out of the wheel that it makes
# environments from. To have an environment made with it takes three seconds.
fetch_uv() {
  rm -f "$wheels"/uv-*.whl
  /usr/bin/python3 "$(echo /usr/share/python-wheels/pip-*.whl)/pip" --quiet --disable-pip-version-check \
    download -d "$wheels" --no-deps --require-hashes -r "$here/uv.txt"
}
# uv takes a second for what pip takes ten for. The first one of a host installs itself.
install_uv() {
  local wheel unpacked=$root/$folder/unpacked
  awk '/^[a-z]/ {on = /^uv==/} on' "$here/$folder.txt" > "$here/uv.txt"
  if [ ! -s "$here/uv.txt" ]; then return; fi
  if ! wheel=$(uv_wheel); then
    [ "$sent" != yes ] && fetch_uv && wheel=$(uv_wheel) || return
  fi
  python3 -m zipfile -e "$wheel" "$unpacked" && chmod +x "$unpacked"/*/scripts/uv &&
    "$unpacked"/*/scripts/uv pip install --quiet --python "$root/$folder/bin/python" --no-deps --require-hashes \
      --no-index --find-links "$wheels" -r "$here/uv.txt"
  rm -rf "$unpacked"
}
make_tools() {
  python3 -m venv --without-pip "$root/$folder" && install_uv || return
  if ! find_uv; then python3 -m venv "$root/$folder" || return; fi
  install_wheels "$root/$folder" "$here/$folder.txt"
}
if ! output=$(make_tools 2>&1); then wheels_failed "$output"; fi
# As a release is: the stamp never outlives what it stands for.
sync -f "$root/$folder"
echo "$digest" > "$root/$folder/.complete"
exec 6>&-
