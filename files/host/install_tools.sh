# Make a small environment of its own. Needs: root, folder (of the environment, and of its lock
# "$here"/<folder>.txt), digest (of that lock).
rm -rf "${root:?}/$folder"
python3 -m venv "$root/$folder"
pip=("$root/$folder/bin/python" -m pip --quiet --disable-pip-version-check install --no-deps --require-hashes)
if ! output=$("${pip[@]}" -r "$here/$folder.txt" 2>&1); then
  printf '%s\n' "$output"
  if grep -qE 'Failed to establish|Temporary failure|Could not find a version|timed out|Network is unreachable' <<< "$output"; then
    fail "The host cannot reach the Python package index: no outbound network, DNS or proxy. Allow outbound HTTPS, then type install again."
  fi
  exit 1
fi
echo "$digest" > "$root/$folder/.complete"
