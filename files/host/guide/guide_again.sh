# Take our units and site away, and have the server that the guide made run as it ran.
# Needs: root, unit, port, guide and ours (from guide.sh), settle.sh.
as_root systemctl stop "$unit.socket" "$unit.service" 2> /dev/null || true
as_root rm -f ${link:+"$link"} "/run/$unit.sock" "${ours[@]}"
as_root systemctl daemon-reload
if systemctl is-active --quiet nginx; then as_root systemctl reload nginx; fi
for _ in $(seq 100); do
  if ! as_root ss -Hltnp "sport = :$port" | grep -q nginx; then break; fi
  sleep 0.1
done
(exec 8>> "$root/.hold"; flock 8; keep_together)
guide start
on_failure() { :; }
rm -f "$root/.well"
