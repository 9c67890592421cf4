# Mind the PostgreSQL databases beside the server's. Needs: root, and "$here"/beside.py with what it imports.
about_databases() { # what to do
  PGPASSFILE=$root/.pgpass "$root/venv/bin/python" "$here/beside.py" action="$1" root="$root" 8>&- 9>&-
}
# Drop those that were made here and that no state names any more.
tidy_databases() {
  if [ -s "$root/.databases" ]; then about_databases tidy || true; fi
}
