# Make what lies in next.part, restored and tried, the state. Needs: root, unit, and what switch.sh
# and health.sh need.
former=$(date -u +%Y%m%dT%H%M%SZ)
# An id of its own, for the case that this one goes back: the set's is another server's.
if [ ! -e "$root/.server-id" ]; then
  od -An -N4 -tx1 /dev/urandom | tr -d ' ' > "$root/.server-id.part"
  mv "$root/.server-id.part" "$root/.server-id"
fi
drain
say "stop the server (requests wait)"
paused=$SECONDS
hold
on_failure() { serve_again; }
stop_server
change_over restore
say "writes waited for $((SECONDS - paused)) s; the former databases are kept in $root/former/$former"
forget_old_states
