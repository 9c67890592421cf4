# Wait until the server answers /health; name the first error of its log when it does not.
# Needs: unit.
await_health() {
  local started=$SECONDS patience=3 code # the socket takes a request before there is a server
  while [ $((SECONDS - started)) -lt 120 ]; do
    code=0
    curl -sf --max-time "$patience" -o /dev/null --unix-socket "/run/$unit.sock" http://localhost/health || code=$?
    if [ $code = 0 ]; then
      say "the server answers after $((SECONDS - started)) s"
      return
    fi
    if [ "$(systemctl show "$unit.service" -p NRestarts --value)" -gt $((restarts_before + 2)) ]; then break; fi
    if [ $patience = 3 ] && [ $((SECONDS - started)) -ge 3 ]; then
      patience=10
      say "wait for the server (usually 10 to 30 s)"
    fi
    if [ $code != 28 ]; then sleep 0.3; fi # whose time is over has waited
  done
  local error
  error=$(as_root journalctl -u "$unit.service" --since "@$began" -o cat --no-pager |
    grep -E '^[A-Za-z0-9_.]*(Error|Exception)\b|^Error:|\[ERROR\]|FAILED' | tail -n 1) || true
  fail "The server does not start: ${error:-no error in its log}. See the whole: ./fab logs"
}
# Start the server, or restart it. Why it does not start says its log: systemctl, which sees it end
# at once only where it looks in that moment, knows no reason.
bring_up() {
  as_root systemctl "${1:-start}" "$unit.service" || true
  await_health
}
# What systemd counts from here on are restarts that nobody asked for. A stop alone does not end the
# count of a server that was waiting to be restarted.
count_from_here() {
  as_root systemctl reset-failed "$unit.service" 2> /dev/null || true
  began=$(date +%s)
  restarts_before=$(systemctl show "$unit.service" -p NRestarts --value)
}
count_from_here
