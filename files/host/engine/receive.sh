# Unpack what arrives on standard input where only this user and only memory sees it, and run it.
# Arguments: the script that runs the steps, then its own.
# Once begun the work goes on to its end even when the connection is lost: output that nobody
# reads any more is dropped, and the lock names the session so that others can tell.
umask 077
runner=$1
shift
session=$$
until [ "$session" -le 1 ] || grep -q '^sshd' "/proc/$session/comm"; do
  session=$(awk '$1 == "PPid:" {print $2}' "/proc/$session/status")
done
export REMOTE_MLFLOW_SESSION=$session
# Not in /dev/shm: systemd empties that for a user whose last session or unit ends (RemoveIPC).
staged=$(mktemp -d /run/lock/remote-mlflow.XXXXXX 2>/dev/null || mktemp -d) || exit
trap 'rm -rf "$staged"' EXIT
tar -xf - -C "$staged" || exit
{ bash "$staged/$runner" "$@" 2>&1 </dev/null; printf '\n@exit %s\n' $?; } | {
  trap '' PIPE
  while IFS= read -r line; do printf '%s\n' "$line" 2>/dev/null || :; done
}
