# Replace the server's state (databases, release, start script) as a whole.
# Needs: root, unit, settle.sh, stream.sh, tidy.sh, and drain.sh or alone.sh. The new state lies in next.part. What goes back after a
# failure runs where bash ignores errexit: so each step here says by itself when it fails.

# From here on the server does not start: who asks it something waits in its socket. The lock ends
# with this process, however that ends. What it starts must not inherit it: close 8 (and 9) there.
hold() { exec 8>> "$root/.hold" && flock 8; }
release_hold() { exec 8>&-; }

# Stop the server and have its databases in one file each. One that is damaged is left as it is.
# The stream ends with its last write; it begins again with the server, anew on other databases.
stop_server() {
  as_root systemctl stop "$unit.service" 8>&- 9>&- || return
  stream_pause || return
  python3 - "$root" 8>&- 9>&- <<'PYTHON' || true
import os, sqlite3, sys
for name in ("mlflow.db", "basic_auth.db"):
    path = os.path.join(sys.argv[1], name)
    try:
        # A journal is played back by the server's start alone: it may name other files.
        if os.path.exists(path) and not os.path.lexists(os.path.realpath(path) + "-journal"):
            base = sqlite3.connect(path, timeout=2)
            base.execute("pragma wal_checkpoint(truncate)").fetchall()
            base.close()
    except sqlite3.Error:
        pass
PYTHON
}

# Spell server.env with the databases that "$here"/stores names.
with_stores() {
  grep -v -e '^MLFLOW_BACKEND_STORE_URI=' -e '^AUTH_STORE_URI=' -e '^PGPASSFILE=' "$root/server.env"
  cat "$here/stores"
}

# Tell whether a state in a folder has databases of its own.
holds_databases() { [ -e "$1/mlflow.db" ] || [ -e "$1/.aside" ] || grep -qs '^AUTH_STORE_URI=' "$1/server.env"; }

# Tell whether a state's PostgreSQL databases were made beside the server's, for it alone.
names_ours() { [ -s "$root/.databases" ] && grep -qsFf "$root/.databases" "$1/server.env"; }

# Databases that other hosts may use as well: open those that come to them, and close those that go,
# so that nobody writes to what is not served any more.
hand_over() {
  if [ -e "$here/beside.py" ] && grep -qs '^AUTH_STORE_URI=' "$root/next.part/server.env"; then
    about_databases hand-over
  fi
}
close_to_others() { about_databases close; }

# Make next.part the state. Arguments: the task, and a name for the state that it replaces.
switch() {
  local databases=false
  if holds_databases "$root/next.part"; then databases=true; fi
  printf '{"task": "%s", "release": "%s", "databases": %s}\n' \
    "$1" "$(basename "$(readlink "$root/venv")")" "$databases" > "$root/next.part/.about.json" || return
  printf '%s\n' "$2" > "$root/next.part/.name" || return
  hand_over || return
  sync -f "$root/next.part"
  mv -T "$root/next.part" "$root/next" || return
  settle
}

# What a new state was built of, where it is not to be, or was cut off.
give_up_next() {
  rm -rf "$root/next.part"
  tidy_databases
}

# Start the server on what is in place now; requests that waited go on.
serve() {
  count_from_here
  as_root systemctl start "$unit.socket" nginx
  bring_up
}

# What a switch does where it fails: before it, and once the new state was in place.
serve_again() {
  give_up_next
  open_again || true
  release_hold
  undrain
  # What failed first is the reason, and not that this state does not serve either.
  if (fail() { warn "$*"; exit 1; }; serve); then
    say "the former state serves again, with all data"
  else
    warn "the former state is in place, but does not answer yet; see: ./fab status"
    return 1
  fi
}
go_back() { # the name of the state that it replaced
  local failed=$1-failed
  hold
  if stop_server && give_back return "$1" "$failed"; then
    # A server that was only slow may have acknowledged a run before it was given up.
    if [ -e "$root/former/$failed/mlflow.db" ] || names_ours "$root/former/$failed"; then
      say "what did not serve is kept in $root/former/$failed"
    else
      rm -rf "$root/former/$failed"
    fi
    serve_again
  else
    warn "the former state could not be put back; it is kept in $root/former/$1"
  fi
}

# Serve what lies in next.part, or what was there before. Needs: former. Argument: the task.
change_over() {
  switch "$1" "$former"
  on_failure() { go_back "$former"; }
  release_hold
  serve
  await_usable
  on_failure() { :; }
  come_back
}

# Put back the state that a switch replaced. Arguments: the task, its name, one for what it replaces
# now, and the release that served it where that may be another than the present one.
give_back() {
  rm -rf "$root/next.part"
  cp -al "$root/former/$2" "$root/next.part" || return
  rm -f "$root/next.part/about.json"
  if [ -n "${start:-}" ] && [ -e "$root/next.part/start_mlflow_server.sh" ]; then
    install -m 0700 "$start" "$root/next.part/start_mlflow_server.sh" || return
  fi
  if [ -n "${4:-}" ] && [ ! -L "$root/next.part/venv" ]; then
    ln -s "releases/$4" "$root/next.part/venv" || return
  fi
  printf '%s\n' "$2" > "$root/next.part/.gives-back" || return
  switch "$1" "$3"
}

# Keep the last two states that each task replaced (each may hold a copy of the databases), and the
# releases that they need.
forget_old_states() {
  local task kept about used folder name
  for task in $(sed -n 's/.*"task": "\([a-z]*\)".*/\1/p' "$root"/former/*/about.json 2> /dev/null | sort -u); do
    kept=$(grep -l "\"task\": \"$task\"" "$root"/former/*/about.json 2> /dev/null | sort -r || true)
    tail -n +3 <<< "$kept" | while read -r about; do rm -rf "$(dirname "$about")"; done
  done
  used=$(cat "$root"/former/*/about.json 2> /dev/null; readlink "$root/venv")
  for folder in "$root"/releases/*/; do
    name=$(basename "$folder")
    if ! grep -qF "$name" <<< "$used"; then rm -rf "$folder" "$root/releases/$name.txt"; fi
  done
  tidy_databases
  forget_wheels
}
# Wheels that no environment of this host holds any more have files of one name (wheels.sh).
forget_wheels() {
  local wheel cache=$HOME/.cache/remote-mlflow
  if [ ! -e "$cache/wheels.lock" ]; then return 0; fi
  (
    flock -n 6 || exit 0 # somebody installs
    for wheel in "$cache"/uv/archive-v*/*; do
      if [ -z "$(find "$wheel" -type f -links +1 -print -quit)" ]; then rm -rf "$wheel"; fi
    done
  ) 6>> "$cache/wheels.lock"
}
