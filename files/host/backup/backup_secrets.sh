# Give programs what backups are made with: the key that vouches for them, and keys of their own for the
# bucket where there are some. Both are root's. A timer has them from systemd; a task lays them where only
# memory sees them. Needs: unit, profile_of_backups (nothing where backups use the server's keys).
backup_secret() { # its name, and where root has it
  if [ -n "${CREDENTIALS_DIRECTORY:-}" ]; then
    if [ -e "$CREDENTIALS_DIRECTORY/$1" ]; then echo "$CREDENTIALS_DIRECTORY/$1"; fi
  elif as_root test -s "/etc/$unit/$2" 2> /dev/null; then
    as_root cat "/etc/$unit/$2" > "$here/$1"
    echo "$here/$1"
  fi
}
# For that program alone: what else a script starts need not know where they lie.
for_backups() {
  local key keys=
  key=$(backup_secret backup.key backup.key)
  if [ -n "$profile_of_backups" ]; then
    keys=$(backup_secret backup-aws backup-aws/credentials)
    [ -n "$keys" ] || fail "The keys of \`backup_profile: $profile_of_backups\` are not on the host yet. Type: ./fab configure"
  fi
  REMOTE_MLFLOW_BACKUP_KEY_FILE=$key REMOTE_MLFLOW_BACKUP_AWS=$keys "$@"
}
