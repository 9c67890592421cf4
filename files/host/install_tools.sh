# Make the small environment with uv and the AWS CLI. Needs: root, tools (digest of the lock).
rm -rf "$root/tools"
python3 -m venv "$root/tools"
pip=("$root/tools/bin/python" -m pip --quiet --disable-pip-version-check install --no-deps --require-hashes)
if ! output=$("${pip[@]}" -r "$here/tools.txt" 2>&1); then
  printf '%s\n' "$output"
  if grep -qE 'Failed to establish|Temporary failure|Could not find a version|timed out|Network is unreachable' <<< "$output"; then
    fail "The host cannot reach the Python package index: no outbound network, DNS or proxy. Allow outbound HTTPS, then type install again."
  fi
  exit 1
fi
echo "$tools" > "$root/tools/.complete"
if ! command -v aws > /dev/null; then as_root ln -sfn "$root/tools/bin/aws" /usr/local/bin/aws; fi
