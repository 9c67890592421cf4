# Lay down what the timers run, and switch them on. Needs: root, unit, stamp, wanted and unwanted
# (backup, verify), and in "$here" a bundle <name>.tar, <name>.service and <name>.timer of each.
unit_of() { case $1 in backup) echo "$unit-backup" ;; *) echo "$unit-backup-$1" ;; esac; }

rm -rf "$root/scheduled.part"
for name in $wanted; do
  mkdir -p "$root/scheduled.part/$name"
  tar -xf "$here/$name.tar" -C "$root/scheduled.part/$name"
done
echo "$stamp" > "$root/scheduled.part/stamp"
# Under the lock none of them is at work; one that waits for the lock finds the new steps.
rm -rf "$root/scheduled"
mv -T "$root/scheduled.part" "$root/scheduled"
for name in $wanted; do
  for kind in service timer; do
    place_as_root "$here/$name.$kind" "/etc/systemd/system/$(unit_of "$name").$kind" 0644
  done
done
for name in $unwanted; do
  as_root systemctl disable --quiet --now "$(unit_of "$name").timer" 2> /dev/null || true
  as_root rm -f "/etc/systemd/system/$(unit_of "$name")".{timer,service}
done
as_root systemctl daemon-reload
for name in $wanted; do
  as_root systemctl enable --quiet "$(unit_of "$name").timer"
  as_root systemctl restart "$(unit_of "$name").timer"
  moment=$(systemctl show "$(unit_of "$name").timer" -p NextElapseUSecRealtime --value)
  say "next $name: $moment"
  report "$name" "$(date -d "$moment" +%s 2> /dev/null)"
done
