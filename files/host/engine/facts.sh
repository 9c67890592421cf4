# Read everything that tasks decide on, in one go, and change nothing.
# Arguments: the texts of facts_sqlite.py and facts_postgres.py, <root> <unit> <port> <profile>, then the packages and files to look at, each list ended by "--". Prints key<TAB>value lines; a value that cannot be had is simply not printed.
# Programs are few: each costs the host milliseconds, and every command looks.
set -u
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"
look_at_sqlite=$1 look_at_postgres=$2 root=${3/#\~/$HOME} unit=$4 port=$5 profile=$6
shift 6
packages=() files=()
while [ "$1" != -- ]; do packages+=("$1"); shift; done
shift
while [ "$1" != -- ]; do files+=("${1/#\~/$HOME}"); shift; done

fact() { printf '%s\t%s\n' "$1" "$2"; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

fact home "$HOME"
fact user "$(id -un)"
fact root "$root"
printf 'now\t%(%s)T\n' -1
read -r hostname machine <<< "$(uname -nm)"
fact hostname "$hostname"
fact machine "$machine"
# shellcheck source=/dev/null
if [ -r /etc/os-release ]; then fact os "$(. /etc/os-release; echo "$ID ${VERSION_ID:-}")"; fi
if [ -d /run/systemd/system ]; then fact systemd yes; fi
fact cores "$(getconf _NPROCESSORS_ONLN)"
if [[ $(< /proc/meminfo) =~ MemTotal:\ *([0-9]+) ]]; then fact memory_kb "${BASH_REMATCH[1]}"; fi

# What takes longest goes on beside all else.
units=("$unit.service" "$unit.socket" nginx.service)
for name in "$unit"-backup{,-verify}.{timer,service} "$unit-stream.service"; do
  if [ -e "/etc/systemd/system/$name" ]; then units+=("$name"); fi
done
shown=LoadState,ActiveState,SubState,UnitFileState,ActiveEnterTimestamp,StateChangeTimestamp
systemctl show "${units[@]}" --timestamp=unix -p "$shown,NRestarts,MemoryCurrent,MainPID" 2>/dev/null |
  # One after the other in this order, with an empty line between two.
  for name in "${units[@]}"; do
    while IFS= read -r line && [ -n "$line" ]; do fact unit "$name $line"; done
  done &
certificate=$(sed -n 's/^ *ssl_certificate *\([^ ;]*\);.*/\1/p' /etc/nginx/{sites-available/"$unit",conf.d/"$unit".conf} 2>/dev/null | head -n 1)
look_as_root() { # all that root alone can see, by one sudo
  as_root bash -s -- "$unit" "$port" "$certificate" 2>/dev/null << 'END'
printf 'sudo\tyes\n'
for name in backup.key backup-aws/credentials; do
  if [ -e "/etc/$1/$name" ]; then
    digest=$(tr -d '\n' < "/etc/$1/$name" | sha256sum)
    printf '%s\t%s\n' "$name" "${digest:0:8}"
  fi
done
# What the service's processes hold, shared pages counted once: systemd's own figure holds the page
# cache as well, and is missing where the kernel counts no memory by control group.
for list in /sys/fs/cgroup/{,unified/,systemd/}system.slice/"$1.service"/cgroup.procs; do
  if [ -r "$list" ]; then
    kilobytes=0
    while read -r pid; do
      # Read at once: line by line, the kernel would count it all again for each.
      if [[ $(< "/proc/$pid/smaps_rollup") =~ Pss:\ *([0-9]+) ]]; then ((kilobytes += BASH_REMATCH[1])); fi
    done < "$list"
    if ((kilobytes)); then printf 'service_kb\t%d\n' "$kilobytes"; fi
    break
  fi
done
process='users:\(\(("[^"]*"),pid=([0-9]*)'
ss -Hltnp "sport = :$2" | while read -r _ _ _ address _ users; do
  if [[ $users =~ $process ]]; then users="${BASH_REMATCH[1]} ${BASH_REMATCH[2]}"; else users=; fi
  printf 'listener\t%s %s\n' "$address" "$users"
done
if [ -n "$3" ]; then
  until=$(openssl x509 -noout -enddate -in "$3")
  if [ -n "$until" ]; then printf 'certificate_until\t%s\n' "$(date -d "${until#notAfter=}" +%s)"; fi
fi
true
END
}
{
  look_as_root || why=$(as_root bash -c true 2>&1) || fact sudo_error "${why##*$'\n'}"
} &

existing=$root
while [ ! -d "$existing" ]; do existing=$(dirname "$existing"); done
# On EC2 the address that others use is nowhere on the host itself.
public=
if grep -qs 'Amazon EC2' /sys/class/dmi/id/*_vendor; then
  ask() { curl -sf --noproxy '*' --max-time 2 "$@"; }
  token=$(ask -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)
  public=$(ask -H "X-aws-ec2-metadata-token: $token" http://169.254.169.254/latest/meta-data/public-ipv4)
fi
fact addresses "$(hostname -I 2>/dev/null) $public"
df -Pk "$existing" | awk 'NR == 2 {printf "disk_kb\t%s\nfree_kb\t%s\n", $2, $4}'

dpkg-query -W -f 'package\t${Package} ${db:Status-Abbrev}\n' "${packages[@]}" 2>/dev/null

# Not ours are a real folder, one of the guide's that rollback gave back, and one that lost its name
# where its taking over was cut off. Who made it, files/host/guide/guide.py tells: it is asked only then.
current=
if [ -L "$root/venv" ]; then current=$(readlink "$root/venv"); current=${current##*/}; fi
if [[ $current = *-guide || ( -z $current && -d $root/venv ) ]]; then
  fact foreign venv
elif [ -n "$current" ]; then
  fact release "$current"
elif compgen -G "$root/releases/*-guide/.guide/stopped" > /dev/null; then
  fact foreign venv
fi
for lock in "$root"/releases/*.txt; do
  if [ -e "$lock" ]; then lock=${lock##*/}; fact locked "${lock%.txt}"; fi
done
for release in "$root"/releases/*; do
  # Without its Python, such as after an upgrade of the system, it has to be made anew.
  if [ -e "$release/.complete" ] && [ -x "$release/bin/python" ]; then fact complete "${release##*/}"; fi
done
for environment in tools stream; do
  if [ -e "$root/$environment/.complete" ]; then fact $environment "$(< "$root/$environment/.complete")"; fi
done

declare -A modes
readable=()
for file in "${files[@]}"; do if [ -r "$file" ]; then readable+=("$file"); fi; done
if ((${#readable[@]})); then
  while read -r mode file; do modes[$file]=$mode; done < <(stat -c '%a %n' "${readable[@]}")
  while read -r digest file; do fact file "$digest ${modes[$file]-} $file"; done < <(sha256sum "${readable[@]}")
fi
if [ -e "$root/server.env" ]; then
  fact server_env_changed "$(stat -c %Y "$root/server.env")"
  while IFS='=' read -r key _; do fact server_env "$key"; done < "$root/server.env"
  # Without a password, should somebody have written one there.
  address() { sed -n "s#://\([^:@/]*\):[^@]*@#://\1@#; s/\([?&]password=\)[^&'\"]*/\1/; s/^$1=['\"]*\([^'\"]*\).*/\1/p" "$root/server.env"; }
  store=$(address MLFLOW_BACKEND_STORE_URI)
  fact store "$store"
  auth_store=$(address AUTH_STORE_URI)
  fact auth_store "$auth_store"
  fact database "$(sed 's/^\([a-z0-9]*\).*/\1/' <<< "$store")"
fi
# Both databases are opened read-only: a probe never makes, migrates or repairs one.
if command -v python3 >/dev/null; then
  python3 -IS -c "$look_at_sqlite" "$root" "${store:-}" "${auth_store:-}" &
fi
if [ -r "$root/start_mlflow_server.sh" ]; then
  fact workers "$(sed -n 's/.*--workers \([0-9]*\).*/\1/p' "$root/start_mlflow_server.sh")"
fi
if grep -qs '^admin_password *= *[^ ]' "$root/.mlflow_auth_config"; then fact bootstrap yes; fi
if [ -e "/run/$unit.drain" ]; then fact drained yes; fi
for stamp in proved proved_backups well owned elsewhere backup tls; do
  if [ -r "$root/.$stamp" ]; then fact "$stamp" "$(< "$root/.$stamp")"; fi
done
if [ -r "$root/.server-id" ]; then fact server_id "$(< "$root/.server-id")"; fi
if [ -r "$root/scheduled/stamp" ]; then fact schedule "$(< "$root/scheduled/stamp")"; fi
if [ -e "$root/audit.log" ]; then fact generation "$(stat -c %s "$root/audit.log")"; fi

if [ -r "$root/stream.yml" ]; then
  fact stream_every "$(sed -n 's/^sync-interval: \([0-9]*\)s$/\1/p' "$root/stream.yml")"
  socket=/run/$unit-stream/litestream.sock
  if [ -S "$socket" ]; then fact stream_sync "$(curl -s --max-time 2 --unix-socket "$socket" http://localhost/list)"; fi
fi
sed -n 's/^[\t ]*\(user\|include\)[\t ]*\([^;#]*\);.*/nginx\t\1 \2/p' /etc/nginx/nginx.conf 2>/dev/null
# Of the credentials only a digest leaves the host: enough to see that they are the wanted ones.
section() { # file, header: the section's key=value lines, sorted, blanks removed
  awk -v want="[$2]" '
    /^[ \t]*\[/ { gsub(/[ \t]+/, " "); gsub(/^ | $/, ""); sub(/\[ /, "["); sub(/ \]/, "]")
                  inside = ($0 == want); next }
    inside && /=/ { key = $0; sub(/=.*/, "", key); gsub(/[ \t]/, "", key)
                    value = $0; sub(/[^=]*=[ \t]*/, "", value); sub(/[ \t]+$/, "", value)
                    print key "=" value }' "$1" | sort
}
if [ -r "$HOME/.aws/credentials" ]; then
  keys=$(section "$HOME/.aws/credentials" "$profile" |
    grep -E '^aws_(access_key_id|secret_access_key|session_token)=')
  if [ -n "$keys" ]; then
    fact credentials "$(printf '%s\n' "$keys" | sha256sum | cut -d' ' -f1)"
    for key in aws_access_key_id aws_secret_access_key; do
      if grep -q "^$key=." <<< "$keys"; then fact credential "$key"; fi
    done
  fi
  fact credentials_mode "$(stat -c %a "$HOME/.aws/credentials")"
fi
if [ -r "$HOME/.aws/config" ]; then
  header="profile $profile"
  if [ "$profile" = default ]; then header=default; fi
  section "$HOME/.aws/config" "$header" | grep -E '^(region|endpoint_url)=' |
    while IFS= read -r line; do fact aws_config "$line"; done
fi

if [[ ${store:-} = postgres* ]] && [ -x "$root/venv/bin/python" ]; then
  "$root/venv/bin/python" -c "$look_at_postgres" "$root"
fi
wait
fact end yes
