# Give the host its backup key. Needs: unit, former (what the key that it has is called, of an empty file
# where it has none), and "$here"/new_backup_key.
found=$({ as_root cat "/etc/$unit/backup.key" 2> /dev/null || true; } | tr -d '\n' | sha256sum | cut -c1-8)
if [ "$found" != "$former" ]; then
  fail "Somebody else gave this host a backup key meanwhile, which stays. Run the same command again."
fi
# The folder is root's alone too: the server's own process runs as the login user.
as_root install -d -m 0700 "/etc/$unit"
place_as_root "$here/new_backup_key" "/etc/$unit/backup.key" 0600
