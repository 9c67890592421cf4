# Rehearse a migration on a copy while the server runs. Needs: root, python (the new release's),
# and aside (a function: migrate and try what lies in next.part). Makes: migrating, whether it must.

# With what their logs hold: somebody who reads all the time, such as a stream to the bucket, keeps
# these from being folded into the files.
copy_databases() {
  PYTHONPATH=$here "$python" -c 'import databases, sys; databases.copy(sys.argv[1], databases.NAMES, sys.argv[2])' "$root" "$root/next.part"
}
rm -rf "$root/next.part"
mkdir -m 0700 "$root/next.part"
on_failure() { rm -rf "$root/next.part"; }
need=$(du -ck "$root"/mlflow.db* "$root"/basic_auth.db* | awk 'END {print $1}')
free=$(df -Pk "$root" | awk 'NR == 2 {print $4}')
# One copy now, and at the switch one more beside the backup's.
if [ "$free" -lt $((3 * need + 100000)) ]; then
  fail "Upgrading needs $((3 * need / 1024 + 100)) MB of room on the host, and $((free / 1024)) are free. Free some, then type upgrade again."
fi
copy_databases
aside | tee "$here/rehearsed"
rm -rf "$root/next.part"
on_failure() { :; }
migrating=no
if grep -q '"migrated": \["' "$here/rehearsed"; then migrating=yes; fi
