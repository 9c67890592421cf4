# Serve what another host of the same database serves since an upgrade, restore or rollback there. Needs:
# root, unit, task, release (the other host's), current (our own), well (what deploy writes down when all is),
# "$here"/stores (server.env's lines), "$here"/auth, "$here"/start, share.py, and switch.sh's words.
next=$root/next.part
former=$(date -u +%Y%m%dT%H%M%SZ)-$current
drain
on_failure() { serve_again; }
paused=$SECONDS
say "stop the server (requests wait)"
hold
stop_server
give_up_next
mkdir -m 0700 "$next"
with_stores > "$next/server.env"
install -m 0600 "$here/auth" "$next/.mlflow_auth_config"
install -m 0700 "$here/start" "$next/start_mlflow_server.sh"
ln -s "releases/$release" "$next/venv"
# A backup brings the key and id of the server that made it.
(read_variables "$next/server.env"; exec "$root/releases/$release/bin/python" "$here/share.py" root="$next") 8>&- 9>&-
change_over "$task"
say "out of service for $((SECONDS - paused)) s; the former state is kept in $root/former/$former"
echo "$well" > "$root/.well"
forget_old_states
