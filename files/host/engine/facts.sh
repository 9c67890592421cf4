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
as_root() { if [ "$user" = root ]; then "$@"; else sudo -n "$@"; fi; }

fact home "$HOME"
user=$(id -un)
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
  if [ ! -r "$site" ]; then continue; fi
  while read -r word value _; do
    if [ "$word" = ssl_certificate ]; then certificate=${value%%;*}; break 2; fi
  done < "$site"
done
look_as_root() { # all that root alone can see, by one sudo
  # bash itself would read a script from a pipe letter by letter.
  # shellcheck disable=SC2016
  as_root bash -c 'eval "$(< /dev/stdin)"' look "$unit" "$port" "$certificate" 2>/dev/null << 'END'
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
  if [ -e "$root/$environment/.complete" ]; then fact $environment "$(< "$root/$environment/.complete")"; fi
done

said=
section() { # file, header, keys: puts the section's key=value lines of these keys into `said`, blanks removed
  local line key value words inside='' wanted=" $3 "
  declare -A values=()
  while IFS= read -r line || [ -n "$line" ]; do
    if [[ $line =~ ^[[:blank:]]*\[ ]]; then
      read -ra words <<< "$line"
      line=${words[*]} line=${line/#\[ /[} line=${line/% \]/]}
      if [ "$line" = "[$2]" ]; then inside=yes; else inside=; fi
    elif [ -n "$inside" ] && [[ $line = *=* ]]; then
      key=${line%%=*} key=${key//[[:blank:]]/} value=${line#*=}
      value=${value#"${value%%[![:blank:]]*}"} value=${value%"${value##*[![:blank:]]}"}
      if [[ $wanted = *" $key "* ]]; then values[$key]+=$key=$value$'\n'; fi
    fi
  done < "$1"
  said=
  for key in $3; do said+=${values[$key]-}; done
}
keys=
if [ -r "$HOME/.aws/credentials" ]; then
  section "$HOME/.aws/credentials" "$profile" "aws_access_key_id aws_secret_access_key aws_session_token"
  keys=$said
  for key in aws_access_key_id aws_secret_access_key; do
    if [[ $'\n'$keys = *$'\n'"$key="[!$'\n']* ]]; then fact credential "$key"; fi
  done
fi
if [ -r "$HOME/.aws/config" ]; then
  header="profile $profile"
  if [ "$profile" = default ]; then header=default; fi
  section "$HOME/.aws/config" "$header" "endpoint_url region"
  while IFS= read -r line; do
    if [ -n "$line" ]; then fact aws_config "$line"; fi
  done <<< "$said"
fi

# All files by one stat and one sha256sum. Of the credentials only a digest leaves the host: enough to
# see that they are the wanted ones.
declare -A modes sizes changed
while read -r mode size time file; do
  modes[$file]=$mode sizes[$file]=$size changed[$file]=$time
done < <(stat -c '%a %s %Y %n' "${files[@]}" "$root"/{server.env,audit.log} "$HOME/.aws/credentials" 2>/dev/null)
readable=()
for file in "${files[@]}"; do if [ -r "$file" ]; then readable+=("$file"); fi; done
while read -r digest file; do
  if [ "$file" != - ]; then
    fact file "$digest ${modes[$file]-} $file"
  elif [ -n "$keys" ]; then
    fact credentials "$digest"
  fi
done < <(printf %s "$keys" | sha256sum "${readable[@]}" -)
if [ -r "$HOME/.aws/credentials" ]; then fact credentials_mode "${modes[$HOME/.aws/credentials]-}"; fi
if [ -e "$root/audit.log" ]; then fact generation "${sizes[$root/audit.log]-}"; fi
if [ -e "$root/server.env" ]; then
  fact server_env_changed "${changed[$root/server.env]-}"
  address() { # line: puts the value into `said`, without a password, should somebody have written one there
    if [[ $1 =~ ://([^:@/]*):[^?]*@ ]]; then set -- "${1/"${BASH_REMATCH[0]}"/"://${BASH_REMATCH[1]}@"}"; fi
    if [[ $1 =~ [?\&]password=[^\&\'\"]* ]]; then set -- "${1/"${BASH_REMATCH[0]}"/"${BASH_REMATCH[0]%%=*}="}"; fi
    [[ $1 =~ ^[^=]*=[\'\"]*([^\'\"]*) ]] && said=${BASH_REMATCH[1]}
  }
  store='' auth_store=''
  while IFS= read -r line || [ -n "$line" ]; do
    fact server_env "${line%%=*}"
    case $line in
      MLFLOW_BACKEND_STORE_URI=*) address "$line"; store=$said ;;
      AUTH_STORE_URI=*) address "$line"; auth_store=$said ;;
    esac
  done < "$root/server.env"
  fact store "$store"
  fact auth_store "$auth_store"
  fact database "${store%%[!a-z0-9]*}"
fi
# Both databases are opened read-only: a probe never makes, migrates or repairs one.
if command -v python3 >/dev/null; then
  python3 -IS -c "${look_at_sqlite:?}" "$root" "${store:-}" "${auth_store:-}" &
fi
read_file() { said=; if [ -r "$1" ]; then said=$(< "$1"); fi; }
read_file "$root/start_mlflow_server.sh"
if [[ $said =~ --workers\ ([0-9]+) ]]; then fact workers "${BASH_REMATCH[1]}"; fi
read_file "$root/.mlflow_auth_config"
password=$'\nadmin_password *= *[^ \n]'
if [[ $'\n'$said =~ $password ]]; then fact bootstrap yes; fi
if [ -e "/run/$unit.drain" ]; then fact drained yes; fi
for stamp in proved proved_backups well owned elsewhere backup tls; do
  if [ -r "$root/.$stamp" ]; then fact "$stamp" "$(< "$root/.$stamp")"; fi
done
if [ -r "$root/.server-id" ]; then fact server_id "$(< "$root/.server-id")"; fi
if [ -r "$root/scheduled/stamp" ]; then fact schedule "$(< "$root/scheduled/stamp")"; fi

if [ -r "$root/stream.yml" ]; then
  read_file "$root/stream.yml"
  interval=$'\nsync-interval: ([0-9]+)s\n'
  if [[ $'\n'$said$'\n' =~ $interval ]]; then fact stream_every "${BASH_REMATCH[1]}"; fi
  socket=/run/$unit-stream/litestream.sock
  if [ -S "$socket" ]; then fact stream_sync "$(curl -s --max-time 2 --unix-socket "$socket" http://localhost/list)"; fi
fi
if [ -r /etc/nginx/nginx.conf ]; then
  while read -r word value; do
    if [[ $word = @(user|include) && $value = *\;* ]]; then fact nginx "$word ${value%%[;#]*}"; fi
  done < /etc/nginx/nginx.conf
fi

if [[ ${store:-} = postgres* ]] && [ -x "$root/venv/bin/python" ]; then
  "$root/venv/bin/python" -c "${look_at_postgres:?}" "$root"
fi
wait
fact end yes
