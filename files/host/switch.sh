# Replace the server's state (databases, release, start script) as a whole.
# Needs: root, unit, and settle.sh. The new state lies in next.part.

# From here on the server does not start: who asks it something waits in its socket. The lock ends
# with this process, however that ends. What it starts must not inherit it: close 8 (and 9) there.
hold() { exec 8>> "$root/.hold" && flock 8; }
release_hold() { exec 8>&-; }

# Stop the server and have its databases in one file each. One that is damaged is left as it is.
stop_server() {
  as_root systemctl stop "$unit.service" 8>&- 9>&-
  python3 - "$root" 8>&- 9>&- <<'PYTHON' || true
import os, sqlite3, sys
for name in ("mlflow.db", "basic_auth.db"):
    path = os.path.join(sys.argv[1], name)
    try:
        if os.path.exists(path):
            base = sqlite3.connect(path, timeout=20)
            base.execute("pragma wal_checkpoint(truncate)").fetchall()
            base.close()
    except sqlite3.Error:
        pass
PYTHON
}

# Make next.part the state. Arguments: the task, and a name for the state that it replaces.
switch() {
  local databases=false
  if [ -e "$root/next.part/mlflow.db" ]; then databases=true; fi
  printf '{"task": "%s", "release": "%s", "databases": %s}\n' \
    "$1" "$(basename "$(readlink "$root/venv")")" "$databases" > "$root/next.part/.about.json"
  printf '%s\n' "$2" > "$root/next.part/.name"
  sync -f "$root/next.part"
  mv -T "$root/next.part" "$root/next"
  settle
}

# Start the server on what is in place now; requests that waited go on.
serve() {
  as_root systemctl start "$unit.socket" nginx "$unit.service"
  await_health
}

# Put back the state that a switch replaced. Arguments: the task, its name, and one for what it
# replaces now.
give_back() {
  rm -rf "$root/next.part"
  cp -al "$root/former/$2" "$root/next.part"
  rm -f "$root/next.part/about.json"
  printf '%s\n' "$2" > "$root/next.part/.gives-back"
  switch "$1" "$3"
}
