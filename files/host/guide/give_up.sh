# Stop our server and put the state of the one that the guide made back. guide_again.sh follows, and does
# the rest by itself where this was cut off. Needs: what that needs, current (our release), former (the
# state's name), release (the guide's, in releases), switch.sh and health.sh.
aside=$(date -u +%Y%m%dT%H%M%SZ)-$current
if [ ! -d "$root/former/$former" ]; then fail "The former state $former is gone. Type ./fab rollback again."; fi
if [ ! -e "$root/releases/$release/.guide/ran.json" ]; then fail "The guide's environment $release is no longer on the host. Its databases are in $root/former/$former."; fi

ours_again() {
  hold
  if [ -e "$root/former/$aside/about.json" ]; then
    guide stop && guide retire
    give_back adopt "$aside" "$former" "$current"
  fi
  for path in "${ours[@]}"; do as_root cp -p "$here/ours/${path//\//_}" "$path"; done
  if [ -n "$link" ]; then as_root ln -sfn "$site" "$link"; fi
  as_root systemctl daemon-reload
  as_root systemctl enable --quiet "$unit.socket" "$unit.service"
  as_root systemctl reload-or-restart nginx
  serve_again
}

mkdir "$here/ours"
for path in "${ours[@]}"; do as_root cp -p "$path" "$here/ours/${path//\//_}"; done
say "stop the server"
hold
on_failure() { ours_again; }
as_root systemctl disable --quiet --now "$unit.socket" "$unit.service" 8>&- 9>&-
stop_server
give_back rollback "$former" "$aside"
release_hold
say "what was replaced is kept in $root/former/$aside"
forget_old_states
