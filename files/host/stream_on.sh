# Start a new stream, and wait until both databases are in the bucket. Needs: root, unit, what
# stream.sh and stream_errors.sh define, and "$here"/{start_stream.sh,stream.yml,stream.service}.
if ! has_stream; then on_failure() { stream_off; }; fi
stream_pause
rm -f "$root/.stream"
place "$here/start_stream.sh" "$root/start_stream.sh" 0700
place "$here/stream.yml" "$root/stream.yml" 0600
place_as_root "$here/stream.service" "/etc/systemd/system/$unit-stream.service" 0644
as_root systemctl daemon-reload
as_root systemctl enable --quiet "$unit-stream.service"
began=$(date +%s) socket=/run/$unit-stream/litestream.sock
as_root systemctl restart "$unit-stream.service"

restarts() { systemctl show "$unit-stream.service" -p NRestarts --value; }
# What its start script says has no level; what Litestream is asked says why it cannot.
why() {
  {
    as_root journalctl _SYSTEMD_UNIT="$unit-stream.service" --since "@$began" -o cat --no-pager | grep -v level= || true
    printf '%s\n' "$output"
  } | grep . | tail -n 1 | shortly
}
for name in mlflow.db basic_auth.db; do
  say "wait until $name is in the bucket"
  until [ -S "$socket" ] || [ "$(restarts)" -ge 2 ]; do sleep 0.2; done
  if ! output=$("$root/stream/bin/litestream" sync -wait -timeout 900 -socket "$socket" "$root/$name" 2>&1); then
    fail "Litestream cannot send $name: $(why). Mend that, then type the same again; earlier backups stay."
  fi
done
