# Read everything that tasks decide on, in one go, and change nothing.
# Arguments: <root> <unit> <port> <profile>, then the packages and files to look at, each list ended by "--"; look_at_sqlite and look_at_postgres are the texts of facts_sqlite.py and facts_postgres.py. Prints key<TAB>value lines; a value that cannot be had is simply not printed.
# One shell runs this for each environment in turn, as a function (tasks/engine/probe.py).
# Programs are few: each costs the host milliseconds, and every command looks.
set -u
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"
root=${1/#\~/$HOME} unit=$2 port=$3 profile=$4
shift 4
packages=() files=()
while [ "$1" != -- ]; do packages+=("$1"); shift; done
shift
while [ "$1" != -- ]; do files+=("${1/#\~/$HOME}"); shift; done

fact() { printf '%s\t%s\n' "$1" "$2"; }
root_shell() { # arguments: runs the script on standard input as root
  # bash itself would read a script from a pipe letter by letter.
  # shellcheck disable=SC2016
  set -- bash --norc -c 'script=$(< /dev/stdin) && eval "$script"' look "$@"
  if [ "$uid" = 0 ]; then "$@"; else sudo -n "$@"; fi
}
# A file that is not there, is a folder or a pipe, or may not be read is passed over.
is_readable() { [ -f "$1" ] && [ -r "$1" ]; }
text_of() { said=; if is_readable "$1"; then { said=$(< "$1"); } 2>/dev/null; fi; } # puts it into `said`
lines_of() { lines=(); if is_readable "$1"; then { mapfile -t lines < "$1"; } 2>/dev/null; fi; } # into `lines`
stamp() { # fact, file: prints what the file holds, if anything
  text_of "$2"
  if [ -n "$said" ]; then fact "$1" "$said"; fi
}

fact home "$HOME"
uid='' user=''
if [[ $(id) =~ ^uid=([0-9]+)(\(([^\)]*))? ]]; then uid=${BASH_REMATCH[1]} user=${BASH_REMATCH[3]}; fi
fact user "$user"
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
certificate=
for site in /etc/nginx/{sites-available/"$unit",conf.d/"$unit".conf}; do
  lines_of "$site"
  for line in "${lines[@]}"; do
    if [[ $line =~ ^[[:blank:]]*ssl_certificate[[:blank:]]+([^\;[:blank:]]+) ]]; then
      certificate=${BASH_REMATCH[1]}
      break 2
    fi
  done
done
look_as_root() { # all that root alone can see, by one sudo
  root_shell "$unit" "$port" "$certificate" 2>/dev/null << 'END'
[ "$EUID" = 0 ] || exit 1
printf 'sudo\tyes\n'
for name in backup.key backup-aws/credentials; do
  if [ -e "/etc/$1/$name" ]; then
    text=$(< "/etc/$1/$name")
    digest=$(printf %s "${text//$'\n'/}" | sha256sum)
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
  # shellcheck disable=SC2016
  look_as_root ||
    why=$(root_shell <<< 'if [ "$EUID" != 0 ]; then echo "it runs commands as user $EUID"; exit 1; fi' 2>&1) ||
    fact sudo_error "${why##*$'\n'}"
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
{ read -r _; read -r _ kilobytes _ free _; } < <(df -Pk "$existing")
fact disk_kb "${kilobytes-}"
fact free_kb "${free-}"

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
  stamp "$environment" "$root/$environment/.complete"
done

section() { # file, header, keys: puts the section's key=value lines of these keys into `said`, blanks removed
  local line key value words inside='' wanted=" $3 "
  declare -A values=()
  lines_of "$1"
  for line in "${lines[@]}"; do
    if [[ $line =~ ^[[:blank:]]*\[ ]]; then
      read -ra words <<< "$line"
      line=${words[*]} line=${line/#\[ /[} line=${line/% \]/]}
      if [ "$line" = "[$2]" ]; then inside=yes; else inside=; fi
    elif [ -n "$inside" ] && [[ $line = *=* ]]; then
      read -r key <<< "${line%%=*}"
      read -r value <<< "${line#*=}"
      if [[ -n $key && $wanted = *" $key "* ]]; then values[$key]+=$key=$value$'\n'; fi
    fi
  done
  said=
  for key in $3; do said+=${values[$key]-}; done
}
section "$HOME/.aws/credentials" "$profile" "aws_access_key_id aws_secret_access_key aws_session_token"
keys=$said
for key in aws_access_key_id aws_secret_access_key; do
  if [[ $'\n'$keys = *$'\n'"$key="[!$'\n']* ]]; then fact credential "$key"; fi
done
header="profile $profile"
if [ "$profile" = default ]; then header=default; fi
section "$HOME/.aws/config" "$header" "endpoint_url region"
while IFS= read -r line; do
  if [ -n "$line" ]; then fact aws_config "$line"; fi
done <<< "$said"

# All files by one stat and one sha256sum. Of the credentials only a digest leaves the host: enough to
# see that they are the wanted ones.
declare -A modes sizes changed
while read -r mode size time file; do
  modes[$file]=$mode sizes[$file]=$size changed[$file]=$time
done < <(stat -c '%a %s %Y %n' "${files[@]}" "$root"/{server.env,audit.log} "$HOME/.aws/credentials" 2>/dev/null)
there=()
for file in "${files[@]}"; do if is_readable "$file"; then there+=("$file"); fi; done
while read -r digest file; do
  if [ "$file" != - ]; then
    fact file "$digest ${modes[$file]-} $file"
  elif [ -n "$keys" ]; then
    fact credentials "$digest"
  fi
done < <(printf %s "$keys" | sha256sum "${there[@]}" -)
if [ -r "$HOME/.aws/credentials" ]; then fact credentials_mode "${modes[$HOME/.aws/credentials]-}"; fi
if [ -e "$root/audit.log" ]; then fact generation "${sizes[$root/audit.log]-}"; fi
if [ -e "$root/server.env" ]; then
  fact server_env_changed "${changed[$root/server.env]-}"
  # A password ends at the first @, or at a later one before any query: nothing of it leaves the host.
  # Only where the user's name holds an @ itself, a port may look like one.
  passwords=('://([^:@/]*):[^@]*@([^?@]*@)*' '://([^:/]*@[^:/]*):[^@/]*@([^?@]*@)*')
  plain=$'^[^=]*=["\x27]*([^"\x27]*)' query=$'[?&](ssl)?password=[^&"\x27]+'
  address() { # line: puts the value into `said`, without a password, should somebody have written one there
    local value=$1 password
    for password in "${passwords[@]}"; do
      if [[ $value =~ $password ]]; then value=${value/"${BASH_REMATCH[0]}"/"://${BASH_REMATCH[1]}@"}; fi
    done
    while [[ $value =~ $query ]]; do
      value=${value/"${BASH_REMATCH[0]}"/"${BASH_REMATCH[0]%%=*}="}
    done
    if [[ $value =~ $plain ]]; then said=${BASH_REMATCH[1]}; fi
  }
  store='' auth_store=''
  lines_of "$root/server.env"
  for line in "${lines[@]}"; do
    fact server_env "${line%%=*}"
    case $line in
      MLFLOW_BACKEND_STORE_URI=*) address "$line"; store=$said ;;
      AUTH_STORE_URI=*) address "$line"; auth_store=$said ;;
    esac
  done
  fact store "$store"
  fact auth_store "$auth_store"
  fact database "${store%%[!a-z0-9]*}"
fi
# Both databases are opened read-only: a probe never makes, migrates or repairs one.
if command -v python3 >/dev/null; then
  python3 -IS -c "${look_at_sqlite:?}" "$root" "${store:-}" "${auth_store:-}" &
fi
text_of "$root/start_mlflow_server.sh"
if [[ $said =~ --workers\ ([0-9]+) ]]; then fact workers "${BASH_REMATCH[1]}"; fi
text_of "$root/.mlflow_auth_config"
password=$'\nadmin_password *= *[^ \n]'
if [[ $'\n'$said =~ $password ]]; then fact bootstrap yes; fi
if [ -e "/run/$unit.drain" ]; then fact drained yes; fi
for name in proved proved_backups well owned elsewhere backup tls; do stamp "$name" "$root/.$name"; done
stamp server_id "$root/.server-id"
stamp schedule "$root/scheduled/stamp"

text_of "$root/stream.yml"
if [ -n "$said" ]; then
  interval=$'\nsync-interval: ([0-9]+)s\n'
  if [[ $'\n'$said$'\n' =~ $interval ]]; then fact stream_every "${BASH_REMATCH[1]}"; fi
  socket=/run/$unit-stream/litestream.sock
  if [ -S "$socket" ]; then fact stream_sync "$(curl -s --max-time 2 --unix-socket "$socket" http://localhost/list)"; fi
fi
lines_of /etc/nginx/nginx.conf
for line in "${lines[@]}"; do
  if [[ $line =~ ^[[:blank:]]*(user|include)[[:blank:]]+([^\;#]*)\; ]]; then
    fact nginx "${BASH_REMATCH[1]} ${BASH_REMATCH[2]}"
  fi
done

if [[ ${store:-} = postgres* ]] && [ -x "$root/venv/bin/python" ]; then
  "$root/venv/bin/python" -c "${look_at_postgres:?}" "$root"
fi
wait
fact end yes
