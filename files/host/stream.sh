# Keep Litestream's hands off databases that are replaced. Needs: unit. Nothing where there is none.
has_stream() { [ -e "/etc/systemd/system/$unit-stream.service" ]; }
# What is not in the bucket yet is sent first, for ten seconds at most.
stream_pause() { ! has_stream || as_root systemctl stop "$unit-stream.service" 8>&- 9>&-; }
# The start of the server does the same. On other databases a new stream begins by itself.
stream_resume() {
  if has_stream && systemctl is-enabled --quiet "$unit-stream.service"; then
    as_root systemctl start "$unit-stream.service" 8>&- 9>&-
  fi
}
# Take all of it away but the program, and what lies in the bucket.
stream_off() {
  ! has_stream || as_root systemctl disable --quiet --now "$unit-stream.service" || true
  as_root rm -f "/etc/systemd/system/$unit-stream.service"
  as_root systemctl daemon-reload
  as_root systemctl reset-failed "$unit-stream.service" 2> /dev/null || true
  rm -rf "$root"/{start_stream.sh,stream.yml,.stream,.mlflow.db-litestream,.basic_auth.db-litestream}
}
