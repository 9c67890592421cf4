# Move runs and users from SQLite to PostgreSQL and serve them there. Needs: root, unit, current
# (the release), python (its own), deep_check.py, well (what
# deploy writes down when all is), "$here"/stores (server.env's lines), "$here"/auth, and switch.sh's words.
next=$root/next.part
former=$(date -u +%Y%m%dT%H%M%SZ)-$current
on_failure() { serve_again; }
paused=$SECONDS
say "stop the server (requests wait)"
hold
stop_server
rm -rf "$next"
mkdir -m 0700 "$next"
# A process of its own, which does not keep the lock from the server's start.
PGPASSFILE=$root/.pgpass "$python" "$here/move_store.py" folder="$root" server="$(cat "$root/.server-id")" 8>&- 9>&-
with_stores > "$next/server.env"
install -m 0600 "$here/auth" "$next/.mlflow_auth_config"
# Nothing takes their place: what is PostgreSQL's now must not lie beside it.
echo mlflow.db basic_auth.db > "$next/.aside"
switch move "$former"
on_failure() { go_back "$former"; }
release_hold
serve
say "check login, database and bucket"
"$root/venv/bin/python" "$here/deep_check.py"
on_failure() { :; }
say "writes waited for $((SECONDS - paused)) s; the SQLite databases are kept in $root/former/$former"
echo "$well" > "$root/.well"
forget_old_states
