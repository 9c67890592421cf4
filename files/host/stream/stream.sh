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
# Tell whether Litestream keeps the server from emptying its logs: what it has not read yet would be
# missing in the bucket, unnoticed. It does so by a reader of its own (SQLite's "WAL-mode File
# Format", WAL_READ_LOCK), which it lets go of for moments only.
stream_holds() {
  local pid name inode try
  pid=$(systemctl show "$unit-stream.service" -p MainPID --value)
  for name in mlflow.db basic_auth.db; do
    inode=$(stat -c %i "$(readlink -f "$root/$name")-shm") || return
    for try in 1 2 3 4 5; do
      awk -v pid="$pid" -v inode=":$inode$" '$5 == pid && $6 ~ inode && $7 >= 123 && $7 <= 127 {held = 1}
        END {exit !held}' /proc/locks && break
      [ $try != 5 ] || return 1
      sleep 0.1
    done
  done
}
# Take all of it away but the program, and what lies in the bucket.
stream_off() {
  ! has_stream || as_root systemctl disable --quiet --now "$unit-stream.service" || true
  as_root rm -f "/etc/systemd/system/$unit-stream.service"
  as_root systemctl daemon-reload
  as_root systemctl reset-failed "$unit-stream.service" 2> /dev/null || true
  rm -rf "$root"/{start_stream.sh,stream.yml,.stream} "$root"/{,data/}.{mlflow,basic_auth}.db-litestream
}
