# Make a small environment of its own. Needs: root, folder (of the environment, and of its lock
# "$here"/<folder>.txt), digest (of that lock).
rm -rf "${root:?}/$folder"
options=(--quiet --no-deps --require-hashes -r "$here/$folder.txt")
# Another server of this host has uv, which takes a second for what pip takes ten for.
with_uv() {
  local uv
  for uv in "$(dirname "$root")"/mlflow-server*/tools/bin/uv; do
    if "$uv" --version > /dev/null 2>&1; then
      "$uv" venv --quiet --python "$(command -v python3)" "$root/$folder" &&
        "$uv" pip install --python "$root/$folder/bin/python" "${options[@]}"
      return
    fi
  done
  return 1
}
with_pip() {
  rm -rf "${root:?}/$folder"
  python3 -m venv "$root/$folder" &&
    "$root/$folder/bin/python" -m pip --disable-pip-version-check install "${options[@]}"
}
if ! UV_PYTHON_DOWNLOADS=never with_uv > /dev/null 2>&1 && ! output=$(with_pip 2>&1); then
  printf '%s\n' "$output"
  if grep -qE 'Failed to establish|Temporary failure|Could not find a version|timed out|Network is unreachable' <<< "$output"; then
    fail "The host cannot reach the Python package index: no outbound network, DNS or proxy. Allow outbound HTTPS, then type ./fab install again."
  fi
  exit 1
fi
echo "$digest" > "$root/$folder/.complete"
