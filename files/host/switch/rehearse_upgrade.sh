# Rehearse a migration on a copy while the server runs. Needs: root, store (sqlite or postgresql), python (the new release's),
# and aside (a function: migrate and try what lies in next.part). Makes: migrating, whether it must.

# With what their logs hold: somebody who reads all the time, such as a stream to the bucket, keeps
# these from being folded into the files.
copy_databases() {
  if [ "$store" = postgresql ]; then
    about_databases copy "$root/next.part"
    return
  fi
  PYTHONPATH=$here "$python" -c 'import databases, sys; databases.copy(sys.argv[1], databases.NAMES, sys.argv[2])' "$root" "$root/next.part"
}
give_up_next
mkdir -m 0700 "$root/next.part"
on_failure() { give_up_next; }
need=0
if [ "$store" = sqlite ]; then need=$(du -ck "$root"/mlflow.db* "$root"/basic_auth.db* | awk 'END {print $1}'); fi
free=$(df -Pk "$root" | awk 'NR == 2 {print $4}')
# One copy now, and at the switch one more beside the backup's.
if [ "$free" -lt $((3 * need + 100000)) ]; then
  fail "Copies of the databases need $((3 * need / 1024 + 100)) MB of room on the host, and $((free / 1024)) are free. Free some, then type the same again."
fi
copy_databases
aside | tee "$here/rehearsed"
give_up_next
on_failure() { :; }
migrating=no
if grep -q '"migrated": \["' "$here/rehearsed"; then migrating=yes; fi
