# Start a new stream, and wait until both databases are in the bucket. Needs: root, unit, what
# stream.sh and stream_errors.sh define, and "$here"/{start_stream.sh,stream.yml,stream.service}.
if ! has_stream; then on_failure() { stream_off; }; fi
stream_pause
place "$here/start_stream.sh" "$root/start_stream.sh" 0700
place "$here/stream.yml" "$root/stream.yml" 0600
place_as_root "$here/stream.service" "/etc/systemd/system/$unit-stream.service" 0644
as_root systemctl daemon-reload
as_root systemctl enable --quiet "$unit-stream.service"
began=$(date +%s) socket=/run/$unit-stream/litestream.sock
as_root systemctl restart "$unit-stream.service"

# What Litestream or its start script last ran into. What S3 says no to, it has tried ten times.
said() {
  as_root journalctl _SYSTEMD_UNIT="$unit-stream.service" --since "@$began" -o cat --no-pager |
    sed -n 's/.* level=ERROR .*error="\?\([^"]*\).*/\1/p; /level=/!p'
}
hopeless() {
  [ "$(systemctl show "$unit-stream.service" -p NRestarts --value)" -ge 2 ] ||
    [ $(($(date +%s) - began)) -gt 900 ] || said | grep -q 'operation error S3'
}
# Both have been sent whole where both say when. Never asked by `litestream sync`: what that is first
# to open it lets go of with its answer, and the stream restores damaged (0.5.17).
sent() {
  local answer
  answer=$(curl -s --max-time 2 --unix-socket "$socket" http://localhost/list) || return
  [ "$(grep -o last_sync_at <<< "$answer" | wc -l)" = 2 ]
}
say "wait until both are in the bucket"
until sent; do
  if hopeless; then
    fail "Litestream cannot send them: $(said | tail -n 1 | shortly). Fix that, then run the same command again; earlier backups stay."
  fi
  sleep 0.3
done
stream_holds || fail "Litestream does not hold the databases' logs, so what it sends is not whole. Run the same command again."
