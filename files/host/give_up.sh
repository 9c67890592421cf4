# Take our server away and have the one that the guide made serve again. Needs: root, unit, port,
# former (the state's name), release (the guide's, in releases), current (ours), switch.sh, health.sh
# and "$here"/guide.py.
aside=$(date -u +%Y%m%dT%H%M%SZ)-$current
ours=("/etc/systemd/system/$unit.service" "/etc/systemd/system/$unit.socket" "/etc/tmpfiles.d/$unit.conf" "/etc/nginx/sites-available/$unit")
if [ ! -d "$root/former/$former" ]; then fail "The former state $former is gone. Type rollback again."; fi
if [ ! -e "$root/releases/$release/.guide/ran.json" ]; then fail "The guide's environment $release is no longer on the host. Its databases are in $root/former/$former."; fi
guide() { python3 "$here/guide.py" "$1" "$root" "$unit" "$root/releases/$release" 8>&- 9>&-; }

ours_again() {
  hold
  if [ -e "$root/former/$aside/about.json" ]; then
    guide stop && guide retire
    give_back adopt "$aside" "$former" "$current"
  fi
  for path in "${ours[@]}"; do as_root cp -p "$here/ours/${path//\//_}" "$path"; done
  as_root ln -sfn "/etc/nginx/sites-available/$unit" "/etc/nginx/sites-enabled/$unit"
  as_root systemctl daemon-reload
  as_root systemctl enable --quiet "$unit.socket" "$unit.service"
  as_root systemctl reload-or-restart nginx
  serve_again
}

mkdir "$here/ours"
for path in "${ours[@]}"; do as_root cp -p "$path" "$here/ours/${path//\//_}"; done
say "stop the server"
paused=$SECONDS
hold
on_failure() { ours_again; }
as_root systemctl disable --quiet --now "$unit.socket" "$unit.service" 8>&- 9>&-
stop_server
as_root rm -f "/etc/nginx/sites-enabled/$unit" "/run/$unit.sock" "${ours[@]}"
as_root systemctl daemon-reload
as_root systemctl reload nginx
for _ in $(seq 100); do
  if ! as_root ss -Hltnp "sport = :$port" | grep -q nginx; then break; fi
  sleep 0.1
done
give_back rollback "$former" "$aside"
release_hold
guide start
on_failure() { :; }
say "nobody served for $((SECONDS - paused)) s; what was replaced is kept in $root/former/$aside"
rm -f "$root/.well"
forget_old_states
