# Make PostgreSQL serve one role and its two databases. Needs: role, database, osuser (who on this host
# is the role), clients (addresses that may log in, none for this host alone), and where there are
# clients scram.py with its request, and known (yes where it may replace the role's). Each step looks first: typed again, nothing is changed.
if [ -n "$packages" ]; then
  say "install $packages with apt"
  install_packages
fi
# Debian's own cluster, the newest where there are several.
read -r version port < <(pg_lsclusters -h | awk '$2 == "main" {print $1, $3}' | sort -V | tail -n 1) || true
[ -n "${version:-}" ] || fail "The host has no PostgreSQL cluster called main. Type: sudo pg_createcluster VERSION main --start"
folder=/etc/postgresql/$version/main
unit=postgresql@$version-main.service
as_postgres() { (cd / && as_root runuser -u postgres -- "$@"); }
sql() { as_postgres psql -qtAX -v ON_ERROR_STOP=1 -p "$port" "$@"; }
rows() { sql -c "$1"; }

wait_for_it() {
  local n
  for n in $(seq 100); do
    if as_postgres pg_isready -q -p "$port"; then return; fi
    sleep 0.1
  done
  fail "PostgreSQL does not start. See why: sudo journalctl -u $unit -n 20"
}
as_root systemctl enable --quiet postgresql.service
as_root systemctl start "$unit"
wait_for_it

if [ "$(rows "select 1 from pg_roles where rolname = '$role'")" != 1 ]; then
  say "make the role $role"
  # It makes databases of its own: a restore goes into a new one.
  rows "create role \"$role\" login createdb" > /dev/null
fi
if [ -e "$here/scram.json" ]; then
  present=$(rows "select rolpassword from pg_authid where rolname = '$role'")
  if [ -n "$present" ] && [ -z "$known" ]; then
    fail "The role $role has a password that is not kept on your machine. Give it, or a new one, in PGPASSWORD, then run the same command again."
  fi
  wanted=$(python3 "$here/scram.py" <<< "$present")
  if [ -n "$wanted" ]; then
    say "give $role its password"
    # Only what it is checked with goes there: no log of PostgreSQL's can show the password.
    printf "alter role \"%s\" password '%s'" "$role" "$wanted" | sql -f - > /dev/null
  fi
fi
for name in "$database" "${database}_auth"; do
  owner=$(rows "select pg_get_userbyid(datdba) from pg_database where datname = '$name'")
  if [ -z "$owner" ]; then
    say "make the database $name"
    # Sorted by bytes, as SQLite does, whatever the language of the host.
    rows "create database \"$name\" owner \"$role\" encoding 'UTF8' template template0 lc_collate 'C' lc_ctype 'C.UTF-8'" > /dev/null
    rows "revoke all on database \"$name\" from public" > /dev/null
  elif [ "$owner" != "$role" ]; then
    fail "The database $name belongs to $owner. Name another one in \`backend_store_uri:\`, or have it given away: ALTER DATABASE \"$name\" OWNER TO \"$role\""
  fi
done

# One block a role, before Debian's own lines: the first that fits decides.
mkdir "$here/wanted" "$here/former"
block() { # file, lines: the file with the role's block made of them, in "$here"/wanted
  local name
  name=$(basename "$1")
  as_root cat "$1" > "$here/former/$name"
  {
    printf '# %s: by postgres.install\n%s\n# %s: end\n' "$role" "$2" "$role"
    sed "/^# $role: by postgres.install$/,/^# $role: end$/d" "$here/former/$name"
  } > "$here/wanted/$name"
}
access="local all $role peer map=$role"
for client in $clients; do
  case $client in */*) ;; *:*) client=$client/128 ;; *) client=$client/32 ;; esac
  access+=$'\n'"hostssl all $role $client scram-sha-256"
done
block "$folder/pg_hba.conf" "$access"
block "$folder/pg_ident.conf" "$role $osuser $role"

# Only where somebody may come from: the address that this host has on the way there.
listen=localhost
for client in $(awk '$1 == "hostssl" && $5 == "scram-sha-256" {print $4}' "$here/wanted/pg_hba.conf"); do
  here_seen=$(ip -o route get "${client%/*}" 2> /dev/null | sed -n 's/.* src \([^ ]*\).*/\1/p') || true
  [ -n "$here_seen" ] || fail "This host has no way to ${client%/*}. Give --clients as this host sees them."
  case ,$listen, in *",$here_seen,"*) ;; *) listen+=,$here_seen ;; esac
done
memory=$(awk '$1 == "MemTotal:" {print int($2 / 1024)}' /proc/meminfo)
# A quarter of the memory is PostgreSQL's own advice for a host that does nothing else; beside MLflow
# an eighth is left.
share=4
if [ "$listen" = localhost ]; then share=8; fi
cat > "$here/wanted/remote-mlflow.conf" << CONF
# Written by postgres.install; changes made here are overwritten.
listen_addresses = '$listen'
password_encryption = 'scram-sha-256'
max_connections = 200
shared_buffers = $((memory / share > 128 ? memory / share : 128))MB
effective_cache_size = $((memory / 2))MB
maintenance_work_mem = $((memory / 16 > 64 ? (memory / 16 < 1024 ? memory / 16 : 1024) : 64))MB
work_mem = 8MB
wal_compression = on
max_wal_size = 2GB
random_page_cost = 1.1
CONF
as_root cat "$folder/conf.d/remote-mlflow.conf" > "$here/former/remote-mlflow.conf" 2> /dev/null || true
# Bound to one address, it must not start before the network has it.
printf '[Unit]\nWants=network-online.target\nAfter=network-online.target\n' > "$here/wanted/remote-mlflow-unit.conf"

differs() { ! cmp -s "$here/wanted/$1" "$here/former/$1"; }
lay() { # from, name, folder: as PostgreSQL's own files are
  as_root install -o postgres -g postgres -m 0640 "$1/$2" "$3/$2.part"
  as_root mv -f "$3/$2.part" "$3/$2"
}
put_back() {
  for name in pg_hba.conf pg_ident.conf; do lay "$here/former" $name "$folder"; done
  if [ -s "$here/former/remote-mlflow.conf" ]; then
    lay "$here/former" remote-mlflow.conf "$folder/conf.d"
  else
    as_root rm -f "$folder/conf.d/remote-mlflow.conf"
  fi
  as_root systemctl restart "$unit"
}
if differs pg_hba.conf || differs pg_ident.conf || differs remote-mlflow.conf; then
  on_failure() { put_back; say "PostgreSQL has its former settings"; }
  for name in pg_hba.conf pg_ident.conf; do lay "$here/wanted" $name "$folder"; done
  wrong=$(rows "select line_number || ': ' || error from pg_hba_file_rules where error is not null limit 1")
  [ -z "$wrong" ] || fail "PostgreSQL refuses $folder/pg_hba.conf, line $wrong"
  if differs remote-mlflow.conf; then
    say "listen on $listen, and restart PostgreSQL"
    lay "$here/wanted" remote-mlflow.conf "$folder/conf.d"
    as_root mkdir -p "/etc/systemd/system/$unit.d"
    place_as_root "$here/wanted/remote-mlflow-unit.conf" "/etc/systemd/system/$unit.d/remote-mlflow.conf" 0644
    as_root systemctl daemon-reload
    as_root systemctl restart "$unit"
    wait_for_it
  else
    say "have PostgreSQL read who may log in"
    as_root systemctl reload "$unit"
  fi
  on_failure() { :; }
fi
socket=$(rows "show unix_socket_directories" | cut -d, -f1)
PGPASSFILE=/dev/null psql -qtAX -w -h "$socket" -p "$port" -U "$role" -d "$database" -c 'select 1' > /dev/null ||
  fail "PostgreSQL does not let $osuser in as $role. See why: sudo journalctl -u $unit -n 20"
printf '@report {"version": "%s", "port": %s, "socket": "%s", "listen": "%s"}\n' "$version" "$port" "$socket" "$listen"
