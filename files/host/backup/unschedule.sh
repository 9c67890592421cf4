# Take the timers away, and what they run. Needs: root, unit.
for name in "$unit-backup" "$unit-backup-verify"; do
  as_root systemctl disable --quiet --now "$name.timer" 2> /dev/null || true
  as_root rm -f "/etc/systemd/system/$name".{timer,service}
done
as_root systemctl daemon-reload
as_root systemctl reset-failed "$unit-backup.service" "$unit-backup-verify.service" 2> /dev/null || true
rm -rf "$root/scheduled"
