# Make what lies in next.part, restored and tried, the state; go back where the server does not
# answer on it. Needs: root, unit, task, and what switch.sh and health.sh need.
former=$(date -u +%Y%m%dT%H%M%SZ)
say "stop the server (requests wait)"
paused=$SECONDS
hold
stop_server
switch restore "$former"
say "the former databases are kept in $root/former/$former"
release_hold
if (serve); then
  say "writes waited for $((SECONDS - paused)) s"
else
  hold
  stop_server
  give_back restore "$former" "$former-failed"
  release_hold
  (serve) || true
  fail "The server did not answer on the restored databases, so the former ones are back. See why: ./fab logs"
fi
