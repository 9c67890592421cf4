# Drop the PostgreSQL databases that were made here and that no state names any more. Needs: root, and
# "$here"/beside.py with what it imports.
tidy_databases() {
  if [ ! -s "$root/.databases" ]; then return; fi
  PGPASSFILE=$root/.pgpass "$root/venv/bin/python" "$here/beside.py" tidy "$root" 8>&- 9>&- || true
}
