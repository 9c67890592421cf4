# Take this server's lock, run the steps beside this file, and leave an audit line.
# Arguments: <root> <who> <task> <generation that the decision was made on, - for any> <how many
# seconds to wait for whoever holds the lock: 0 for the first step of a command>
# Exits 75 when somebody else holds the lock, 76 when the host changed since it was looked at.
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=files/host/engine/words.sh
. "$here/words.sh"
root=${1/#\~/$HOME} who=$2 task=$3 generation=$4 patience=${5:-0}
audit() { printf '%s\t%s\t%s\t%s\n' "$(date -u +%FT%TZ)" "$who" "$task" "$1" >> "$root/audit.log"; }

mkdir -p "$root"
chmod 0700 "$root"
lock=$root/.lock
exec 9>> "$lock"
# What a timer starts waits for an operator, and an operator for it: neither fails for the other.
if ! flock -w "${REMOTE_MLFLOW_PATIENCE:-0}" 9; then
  IFS=$'\t' read -r holder since doing pid session < "$lock" || true
  if [ "$holder" = timer ]; then
    say "the scheduled $doing is at work; waiting for it to finish"
  elif [ "$patience" -gt 0 ]; then
    say "$doing by $holder is at work since $since; waiting for it to finish"
  elif [ -e "/proc/$session" ]; then
    printf '@held %s\t%s\t%s\t%s\n' "$holder" "$since" "$doing" "$pid"
    exit 75
  else
    say "$doing by $holder lost its connection at work; waiting for it to finish"
  fi
  flock -w 900 9 || { printf '@held %s\t%s\t%s\t%s\n' "$holder" "$since" "$doing" "$pid"; exit 75; }
fi
# shellcheck source=files/host/engine/settle.sh
. "$here/settle.sh"
# Finished here, a switch that was cut off makes what the task decided on outdated.
if [ -d "$root/next" ]; then
  (exec 8>> "$root/.hold"; flock 8; settle)
  audit "finished a switch that was cut off"
elif [ -s "$root/.closed" ]; then
  (exec 8>> "$root/.hold"; flock 8; open_again)
fi
seen=$(stat -c %s "$root/audit.log" 2>/dev/null || echo 0)
if [ "$generation" != - ] && [ "$seen" != "$generation" ]; then exit 76; fi
printf '%s\t%s\t%s\t%s\t%s\n' "$who" "$(date -u +%FT%TZ)" "$task" "$$" "${REMOTE_MLFLOW_SESSION:-$$}" > "$lock"

audit begun
# What steps put back when one of them fails; `fail` exits, so it hangs on EXIT.
on_failure() { :; }
finish() {
  local code=$?
  if [ $code != 0 ]; then on_failure || true; fi
  audit "$([ $code = 0 ] && echo done || echo "failed ($code)")"
}
trap finish EXIT
# shellcheck source=/dev/null
. "$here/steps.sh"
