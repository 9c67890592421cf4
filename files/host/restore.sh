# Make what lies in next.part, restored and tried, the state. Needs: root, unit, and what switch.sh
# and health.sh need.
former=$(date -u +%Y%m%dT%H%M%SZ)
say "stop the server (requests wait)"
paused=$SECONDS
hold
on_failure() { serve_again; }
stop_server
switch restore "$former"
on_failure() { go_back restore "$former"; }
release_hold
serve
on_failure() { :; }
say "writes waited for $((SECONDS - paused)) s; the former databases are kept in $root/former/$former"
forget_old_states
