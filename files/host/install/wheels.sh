# Install locked wheels: what this host has needs no network. Needs: root, sent (yes where nothing but
# what the operator sent may be used).
# All servers of the host have one cache, which no server's process can see. Releases hold its files
# by hard links, so it takes no room beside them.
wheels=$HOME/.cache/remote-mlflow/wheels # as files: uv's own, and what a wheelhouse brought
export UV_CACHE_DIR=$HOME/.cache/remote-mlflow/uv UV_LINK_MODE=hardlink UV_PYTHON_DOWNLOADS=never
mkdir -p "$wheels"
# Nobody forgets a wheel that is about to be used (switch.sh).
exec 6>> "$wheels.lock"
flock -s 6

# Find an uv that runs: this server's, or another one's of this host.
find_uv() {
  for uv in "$root"/tools/bin/uv "$(dirname "$root")"/mlflow-server*/tools/bin/uv; do
    if "$uv" --version > /dev/null 2>&1; then return; fi
  done
  uv=
  return 1
}
# Install a lock in an environment, by uv or else by pip.
install_wheels() { # the environment, the lock
  local options=(--no-deps --require-hashes -r "$2") files=(--no-index --find-links "$wheels")
  local pip=("$1/bin/python" -m pip install --quiet --disable-pip-version-check "${options[@]}")
  if [ -n "$uv" ]; then
    pip=("$uv" pip install --python "$1/bin/python" "${options[@]}")
    if [ "$sent" != yes ] && "${pip[@]}" --offline 2> /dev/null; then return; fi
  fi
  if [ "$sent" = yes ]; then
    "${pip[@]}" "${files[@]}"
  else
    "${pip[@]}" "${files[@]}" 2> /dev/null || "${pip[@]}"
  fi
}
# End where wheels could not be installed, with the reason. Argument: what was said.
wheels_failed() {
  printf '%s\n' "$1"
  case $sent,$1 in
    *"No space left"*) fail "The disk of the host is full. Free 2 GB, then run the same command again." ;;
    yes,*) fail "What was sent does not make the environment: $(tail -n 1 <<< "$1"). Make the wheelhouse anew: ./fab wheelhouse" ;;
    *"dns error"* | *"error sending request"* | *"Failed to fetch"* | *"connect error"* | *"Connection"* | *"Failed to establish"* | *"Temporary failure"* | *"Could not find a version"* | *"timed out"* | *"Network is unreachable"*)
      fail "The host cannot reach the Python package index: no outbound network, DNS or proxy. Allow outbound HTTPS, then run the same command again; for a host without: ./fab wheelhouse" ;;
  esac
  exit 1
}
