# Put the files in place, start what changed, and wait until the server is usable.
# Needs: unit, port, site and link (nginx's file, and the link that it includes it by, or ''), group (nginx's), listen (its addresses), tls_name (or empty) and what check_https.sh needs, drain.sh or alone.sh, restart (yes where the server must see
# new files), stream (yes where it must), what stream.sh defines, first (yes where the database that other hosts have too lacks its tables), well (what to write down when all is), and "$here"/places: <staged name> <mode> <path>.
# A failure puts the former files back and the former server on its feet again.
mkdir -p "$here/former"

each_place() { while IFS=$'\t' read -r -u 3 name mode path; do "$@"; done 3< "$here/places"; }
keep_former() {
  if as_root test -e "$path"; then as_root cp -p "$path" "$here/former/$name"; fi
}
put() {
  say "put $path"
  case $path in
    "$root"/*) place "$here/$name" "$path" "$mode" ;;
    *) place_as_root "$here/$name" "$path" "$mode" ;;
  esac
}
put_back() {
  if as_root test -e "$here/former/$name"; then
    as_root cp -p "$here/former/$name" "$path"
  else
    as_root rm -f "$path"
  fi
}
# Also those that a deploy put which was cut off.
units_changed() {
  grep -q $'\t/etc/systemd/' "$here/places" ||
    [[ $(systemctl show -p NeedDaemonReload --value "$unit.socket" "$unit.service") == *yes* ]]
}
# Not anew: nginx brings a script of the old kind as well, and to enable that takes a second.
start_at_boot() {
  local each wanted=()
  for each; do
    if [ "$(systemctl is-enabled "$each" 2> /dev/null)" != enabled ]; then wanted+=("$each"); fi
  done
  if [ ${#wanted[@]} -gt 0 ]; then as_root systemctl enable --quiet "${wanted[@]}"; fi
}
reload_nginx() {
  if as_root systemctl is-active --quiet nginx; then
    as_root systemctl reload nginx
  else
    as_root systemctl start nginx
  fi
}
# A reload leaves nginx where it was if the new address and the old one exclude each other, such as
# 0.0.0.0 and 127.0.0.1 on one port.
listens_right() {
  local n
  for n in $(seq 20); do
    [ "$(as_root ss -Hltn "sport = :$port" | awk '{print $4}' | sort -u | xargs)" = "$listen" ] && return
    sleep 0.1
  done
  return 1
}
# One of the hosts that start on a new database makes its tables and its first user; the others wait.
await_turn() {
  coproc turn { read_variables "$root/server.env"; exec "$root/venv/bin/python" "$here/first_start.py"; }
  local said
  turn_held=${turn[1]}
  while read -r said; do
    case $said in
      wait) say "wait for another host to make the database's tables" ;;
      first | there) return ;;
      *) printf '%s\n' "$said"; exit 1 ;;
    esac
  done <&"${turn[0]}"
  exit 1
}
# Leave it to load, which takes seconds, while nginx is seen to.
start_early() {
  if [ $apart = no ]; then "$root/ready_mlflow_server.sh" data 9>&-; fi
  as_root systemctl start --no-block "$unit.service"
}
answers() { [ $was_active = yes ] && curl -sf --max-time 10 -o /dev/null --unix-socket "/run/$unit.sock" http://localhost/health; }
# One of ours that was never seen well and does not answer may have been cut off making its first
# tables, by a loss of power.
forget_unmade() {
  if [ -e "$root/.well" ] || declare -F old_server_back > /dev/null || answers; then return 0; fi
  if [ "$new" = no ]; then
    say "stop the server, which was never seen well"
    # With its socket: a request that waits there would start it again.
    as_root systemctl stop "$unit.socket" "$unit.service"
  fi
  python3 "$here/forget_unmade.py" root="$root"
}
new=yes
if as_root test -e "/etc/systemd/system/$unit.service"; then new=no; fi
was_active=no
if systemctl is-active --quiet "$unit.service"; then was_active=yes; fi
apart=yes
if [ ! -d "$root/data" ]; then apart=no; fi
# Nobody's requests wait for one that is new. An adopted one starts once nginx is known to be well.
early=no
if [ "$new$was_active$first$stream" = yesnonono ] && ! declare -F old_server_back > /dev/null; then early=yes; fi
forget_unmade
databases() { compgen -G "$root/mlflow.db*" || compgen -G "$root/basic_auth.db*" || compgen -G "$root/data/*"; }
unborn=no
if [ $new = yes ] && ! databases > /dev/null; then unborn=yes; fi
# MLflow never goes on with tables that it was stopped making; nobody has put anything into them.
undo_birth() {
  if [ $unborn = yes ]; then rm -rf "$root"/{mlflow,basic_auth}.db{,-wal,-shm,-journal} "$root/data"; fi
}
# Databases that have been moved to data/ were where the former files look for them.
undo_apart() {
  if [ $apart = yes ] || [ ! -d "$root/data" ]; then return 0; fi
  as_root systemctl stop "$unit.service" || true
  stream_pause || true
  (exec 8>> "$root/.hold"; flock 8; keep_together)
}
undo() {
  undo_apart
  if [ "$new" = yes ]; then
    as_root systemctl disable --quiet --now "$unit.socket" "$unit.service" || true
    as_root rm -f "${link:-$site}"
    undo_birth
  fi
  each_place put_back
  as_root systemctl daemon-reload
  if [ "$was_active" = yes ]; then
    as_root systemctl restart "$unit.service" || true
    stream_resume || true
    say "the former files are back, and the former server is being started"
  elif [ "$new" = no ]; then
    as_root systemctl stop "$unit.socket" "$unit.service" || true
    say "the former files are back; the server is stopped, as it was"
  fi
  if as_root nginx -t 2> /dev/null; then reload_nginx || true; fi
}

each_place keep_former
# Whatever was adopted goes back to what it was, too.
all_back() { undo; if declare -F old_server_back > /dev/null; then old_server_back; fi; }
on_failure() { all_back; }
each_place put

python3 "$here/log_ahead.py" root="$root"

as_root systemd-tmpfiles --create "/etc/tmpfiles.d/$unit.conf"
if units_changed; then as_root systemctl daemon-reload; fi
start_at_boot "$unit.socket" "$unit.service"

if [ -n "$link" ]; then as_root ln -sfn "$site" "$link"; fi
if ! output=$(as_root nginx -t 2>&1); then
  printf '%s\n' "$output"
  fail "nginx refuses its configuration: $(grep -m1 -o 'emerg.*' <<< "$output"). Fix that file, then type ./fab deploy again."
fi
as_root systemctl start "$unit.socket"
# One that listens already keeps the group of its own time.
as_root chgrp "$group" "/run/$unit.sock"
if [ $early = yes ]; then
  say "start the server"
  start_early
fi
start_at_boot nginx
reload_nginx || fail "nginx does not start. See why: journalctl -u nginx -n 20"
listens_right || as_root systemctl restart nginx

if [ "$first" = yes ]; then await_turn; fi
if [ "$restart" = yes ] && [ "$was_active" = yes ]; then
  drain all_back
  say "restart the server (requests wait, none is lost)"
  if [ $apart = no ] || [ "$stream" = yes ]; then
    as_root systemctl stop "$unit.service"
    stream_pause
  else
    as_root systemctl restart "$unit.service" || true # why it does not start says bring_up
  fi
elif [ $early = no ]; then
  say "start the server"
  if [ "$stream" = yes ]; then stream_pause; fi
fi
if [ $apart$early = nono ]; then "$root/ready_mlflow_server.sh" data 9>&-; fi
bring_up
if [ "$stream" = yes ]; then stream_resume; fi
if [ "$first" = yes ]; then exec {turn_held}>&-; fi
say "check login, database and bucket"
"$root/venv/bin/python" "$here/deep_check.py" || exit 1
if [ -n "$tls_name" ]; then
  say "check https://$tls_name"
  check_https
fi
# Drained here, or by a task that was cut off.
if [ -e "/run/$unit.drain" ]; then
  await_usable
  come_back
fi
on_failure() { :; }
if [ -e "$here/after" ]; then
  # The first start made the first user; from here on only a hash of the password is kept.
  if grep -qs '^admin_password *= *[^ ]' "$root/.mlflow_auth_config"; then
    say "take the first password off the host"
  fi
  place "$here/after" "$root/.mlflow_auth_config" 0600
fi
echo "$well" > "$root/.well"
