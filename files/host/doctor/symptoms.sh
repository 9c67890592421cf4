# Look for what may be wrong with a server, beside the facts, and change nothing.
# Needs: root, unit, port, name (public, or ''), profile (where it is not the default one),
# patience (seconds after which a part that runs is left alone), bucket (a function that runs
# look_at_bucket.py), and what stream.sh, stream_errors.sh and certbot.sh define.
# Every part looks on its own and at the same time, so that one that fails or hangs hides no other.
# Prints `@report <key><TAB><value>` lines, and `@report looked<TAB><part>` for each part that ended.
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
    [ -e "$file" ] && report mode "$(stat -c '%a %n' "$file")"
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
    report schedule "$(systemctl show "$timer" -p ActiveState --value)"
    report timer "$(systemctl list-timers --all --output=json "$timer" 2>/dev/null)"
  fi
  if active "$unit-stream.service"; then
    # As start_stream.sh noted them.
    files=$(cd "$root" && stat -c '%i %W' mlflow.db basic_auth.db | xargs)
    [ "$(sed -n 2p "$root/.stream")" = "$files" ] || report stream_astray yes
    stream_holds || report stream_loose yes
  fi
  [ -e "$root/stream.yml" ] && report stream_error "$(stream_errors | tail -n 1)"
  look_at_timers
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
  if output=$(as_root nginx -t 2>&1); then report nginx ok; else
    report nginx "$(grep -m1 -o 'emerg.*' <<< "$output" | cut -c1-300)"
  fi
  as_root grep -hsE '^ *ssl_certificate ' "/etc/nginx/sites-enabled/$unit" |
    sed 's/.*ssl_certificate  *//; s/;.*//' | sort -u | while read -r file; do
      ends=$(as_root openssl x509 -enddate -noout -in "$file" 2>/dev/null) &&
        report certificate "$(date -d "${ends#*=}" +%s) $file"
      if [ -r "$root/.tls" ]; then look_at_tls "$file"; fi
    done
}

# Whether the name's certificate is the one that is shown, and renews itself.
look_at_tls() {
  local tls_name authority file=$1 ends
  read -r tls_name authority < "$root/.tls"
  fingerprint() { openssl x509 -noout -fingerprint -sha256 2> /dev/null; }
  if active nginx && [ "$(as_root cat "$file" | fingerprint)" != \
    "$(timeout "$patience" openssl s_client -connect 127.0.0.1:443 -servername "$tls_name" < /dev/null 2> /dev/null | fingerprint)" ]; then
    report unserved yes
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
  if active "$unit.service" && active nginx && command -v python3 > /dev/null; then
    timeout "$patience" python3 "$here/look_at_requests.py" name="$name"
  fi
}

look_at_databases() {
  timeout "$patience" python3 "$here/look_at_databases.py" root="$root"
}

# With what names the databases, and where their password lies.
as_mlflow() (
  set -a
  # shellcheck source=/dev/null
  . "$root/server.env"
  exec "$@"
)

look_at_webhooks() {
  as_mlflow timeout "$patience" "$root/venv/bin/python" "$here/look_at_webhooks.py" root="$root"
}

look_at_environment() {
  python=$root/venv/bin/python
  [ -e "$root/venv" ] || return
  if [ ! -x "$python" ]; then
    report environment "its Python is gone"
    return
  fi
  if ! said=$("$python" -c pass 2>&1); then
    report environment "$(tail -n 1 <<< "${said:-its Python does not run}" | cut -c1-300)"
    return
  fi
  report environment "$("$python" "$here/look_at_environment.py" 2>&1 | tail -n 1)"
}

look_at_bucket() {
  timeout "$patience" "$root/venv/bin/python" "$here/look_at_bucket.py"
}

parts="system service nginx requests databases webhooks environment bucket"
for part in $parts; do
  {
    case $part in
      bucket) bucket ;;
      *) "look_at_$part" ;;
    esac
    case $? in
      0) report looked "$part" ;;
      124) echo "it did not answer within $patience s" >&2 ;;
    esac
  } > "$here/$part.seen" 2> "$here/$part.errors" &
done
# shellcheck disable=SC2086 # names without spaces
report_parts $parts
