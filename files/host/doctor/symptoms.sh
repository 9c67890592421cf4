# Look for what may be wrong with a server, beside the facts, and change nothing.
# Needs: root, unit, port, name (public, or ''), profile (where it is not the default one),
# patience (seconds that a part may take), bucket (a function that runs look_at_bucket.py), and what
# parts.sh, look_at_host.sh, backup_secrets.sh, stream.sh, stream_errors.sh and certbot.sh define.
# Prints `@report <key><TAB><value>` lines beside those of parts.sh.
set +eu +o pipefail
if [ -z "$name" ] && [ -r "$root/.tls" ]; then read -r name _ < "$root/.tls"; fi
active() { systemctl is-active --quiet "$1"; }

# A worker of MLflow's is called python, and made anew by its parent: name the whole by its first one.
server_of() {
  local pid=${1##* } parent mlflow=no
  case $1 in '"python'* | '"mlflow'* | '"uvicorn'* | '"gunicorn'*) ;; *) echo "$1"; return ;; esac
  while :; do
    as_root grep -qsa mlflow "/proc/$pid/cmdline" && mlflow=yes
    parent=$(awk '$1 == "PPid:" {print $2}' "/proc/$pid/status" 2>/dev/null)
    grep -qsE '^(python|mlflow|uvicorn|gunicorn)' "/proc/$parent/comm" || break
    pid=$parent
  done
  if [ $mlflow = yes ]; then echo "\"mlflow\" $pid"; else echo "$1"; fi
}

look_at_system() {
  for place in "$root" / /var/log /tmp; do
    [ -d "$place" ] || continue
    at=$(df -P "$place" | awk 'NR == 2 {print $6}')
    mode=$(awk -v at="$at" '$2 == at {options = $4} END {print options ~ /^ro(,|$)/ ? "ro" : "rw"}' /proc/mounts)
    report mount "$(df -Pi "$at" | awk 'NR == 2 {print $2, $4}') $mode $(df -Pk "$at" | awk 'NR == 2 {print $2, $4}') $at"
  done
  for file in "$root" "$root/server.env" "$root/.mlflow_auth_config" "$root"/*.db "$HOME"/.aws/credentials; do
    [ -e "$file" ] && report mode "$(stat -Lc '%a %n' "$file")"
  done
  if [ -n "$profile" ] && ! grep -qs "^\[\(profile \)\?$profile\]" ~/.aws/credentials ~/.aws/config; then
    report profile absent
  fi
  systemctl --failed --no-legend --plain 2>/dev/null | while read -r failed _; do report failed "$failed"; done
  [ -e /run/reboot-required ] && report reboot yes
  # In a container the clock is its host's business.
  systemd-detect-virt --container --quiet ||
    report synchronised "$(timedatectl show -p NTPSynchronized --value 2>/dev/null)"
  as_root ss -Hltnp 2>/dev/null | while read -r _ _ _ address _ process; do
    listener=$(sed -n 's/.*users:((\("[^"]*"\),pid=\([0-9]*\).*/\1 \2/p' <<< "$process")
    report listener "$address $(server_of "$listener")"
  done
  # The largest files of a disk that is getting full: where to look first.
  if [ "$(df -Pk "$root" | awk 'NR == 2 {print int(100 * $4 / $2)}')" -lt 10 ]; then
    timeout 1 find "$root" -xdev -not -path '*/releases/*' -size +20M -printf '%s %p\n' 2>/dev/null |
      sort -rn | head -n 3 | while read -r large; do report large "$large"; done
  fi
  need_root
}

look_at_service() {
  as_root journalctl -u "$unit.service" --since -2h -n 3000 -o cat --no-pager 2>/dev/null > "$here/journal"
  # The first of the last start; what the server says may overtake systemd's own "Started".
  report error "$(awk '/^Starting |Scheduled restart job/{error = ""}
    error == "" && (/^[A-Za-z_.]*(Error|Exception)(:|$)/ || /^Error:/ || /: (line [0-9]+: )?.*(No such file|not found|Permission denied)/ || /Failed (at step|to )/) {error = $0}
    END {print error}' "$here/journal" | cut -c1-300)"
  report oom "$(grep -c 'killed by the OOM killer' "$here/journal")"
  timer=$unit-backup.timer
  if [ "$(systemctl show "$timer" -p LoadState --value 2>/dev/null)" = loaded ]; then
    report zone "$(date '+%z %Z')"
    report schedule "$(systemctl show "$timer" -p ActiveState --value)"
    report timer "$(systemctl list-timers --all --output=json "$timer" 2>/dev/null)"
  fi
  if active "$unit-stream.service"; then
    # As start_stream.sh noted them.
    files=$(cd "$root" && stat -Lc '%i %W' mlflow.db basic_auth.db | xargs)
    [ "$(sed -n 2p "$root/.stream")" = "$files" ] || report stream_astray yes
    stream_holds || report stream_loose yes
  fi
  [ -e "$root/stream.yml" ] && report stream_error "$(stream_errors | tail -n 1)"
  look_at_timers
  need_root
}

look_at_timers() {
  for name in backup backup-verify; do
    systemctl is-failed --quiet "$unit-$name.service" || continue
    # The last word of its last run: why it failed, or who held the lock for too long.
    report timer_failed "$name $(as_root journalctl -u "$unit-$name.service" -n 200 -o cat --no-pager 2>/dev/null |
      awk '/^Starting /{why = ""}
        sub(/^@fail /, "") {why = $0}
        sub(/^@held /, "") {sub(/\t.*/, ""); why = $0 " held the lock for too long."}
        END {print why}' | cut -c1-300)"
  done
}

look_at_nginx() {
  need_root || return
  if output=$(as_root timeout "$patience" nginx -t 2>&1); then
    report nginx ok
  elif grep -q emerg <<< "$output"; then
    report nginx "$(grep -m1 -o 'emerg.*' <<< "$output" | cut -c1-300)"
  else
    printf '%s\n' "$output" >&2
    return 1
  fi
  as_root grep -hsE '^ *ssl_certificate ' "/etc/nginx/sites-enabled/$unit" "/etc/nginx/conf.d/$unit.conf" |
    sed 's/.*ssl_certificate  *//; s/;.*//' | sort -u | while read -r file; do
      ends=$(as_root openssl x509 -enddate -noout -in "$file" 2>/dev/null) &&
        report certificate "$(date -d "${ends#*=}" +%s) $file"
      if [ ! -r "$root/.tls" ] || look_at_tls "$file"; then continue; fi
      return 1
    done
}

# Whether the name's certificate is the one that is shown, and renews itself.
look_at_tls() {
  local tls_name authority file=$1 shown
  read -r tls_name authority < "$root/.tls"
  fingerprint() { openssl x509 -noout -fingerprint -sha256 2> /dev/null; }
  if active nginx; then
    shown=$(timeout "$patience" openssl s_client -connect 127.0.0.1:443 -servername "$tls_name" < /dev/null 2> /dev/null)
    if [ $? = 124 ]; then
      echo "port 443 did not answer within $patience s" >&2
      return 1
    fi
    [ "$(as_root cat "$file" | fingerprint)" = "$(fingerprint <<< "$shown")" ] || report unserved yes
  fi
  [ "$authority" != own ] || return 0
  report renewal "$(systemctl is-active certbot.timer 2> /dev/null)"
  systemctl is-failed --quiet certbot.service || return 0
  # Of its last run, what it says of this name; another may have failed.
  as_root journalctl -u certbot.service -n 200 -o cat --no-pager 2> /dev/null |
    awk '/^Starting /{said = ""} {said = said $0 "\n"} END {printf "%s", said}' > "$here/certbot.log"
  if grep -qF "Failed to renew certificate $tls_name with error" "$here/certbot.log"; then
    report renewal_failed "$(grep -F "Failed to renew certificate $tls_name " "$here/certbot.log" | why_not)"
  fi
}

look_at_requests() {
  # A request would start a stopped service.
  if ! active "$unit.service" || ! active nginx; then
    echo "the server is down" >&2
    return 1
  fi
  timeout "$patience" python3 "$here/look_at_requests.py" name="$name"
}

look_at_databases() {
  timeout "$patience" python3 "$here/look_at_databases.py" root="$root"
}

# With what names the databases, and where their password lies.
as_mlflow() (
  read_variables "$root/server.env"
  exec "$@"
)

look_at_webhooks() {
  as_mlflow timeout "$patience" "$root/venv/bin/python" "$here/look_at_webhooks.py" root="$root"
}

look_at_admins() {
  # MLflow's environment reaches PostgreSQL; SQLite is looked at while it is broken, too.
  if grep -qs "^AUTH_STORE_URI=['\"]*postgres" "$root/server.env"; then
    as_mlflow timeout "$patience" "$root/venv/bin/python" "$here/look_at_admins.py" root="$root"
  else
    timeout "$patience" python3 "$here/look_at_admins.py" root="$root"
  fi
}

look_at_environment() {
  python=$root/venv/bin/python
  if [ ! -e "$root/venv" ]; then
    echo "there is none" >&2
    return 1
  fi
  if [ ! -x "$python" ]; then
    report environment "its Python is gone"
    return
  fi
  said=$(timeout "$patience" "$python" -c pass 2>&1)
  case $? in
    0) ;;
    124) return 124 ;;
    *)
      report environment "$(tail -n 1 <<< "${said:-its Python does not run}" | cut -c1-300)"
      return
      ;;
  esac
  said=$(timeout "$patience" "$python" "$here/look_at_environment.py") || return
  report environment "$said"
}

look_at_bucket() { bucket; }
ask_bucket() { for_backups timeout "$patience" "$root/venv/bin/python" "$here/look_at_bucket.py" root="$root"; }

look_at_parts system machine names service nginx requests databases admins webhooks environment bucket
