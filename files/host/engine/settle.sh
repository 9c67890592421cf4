# Finish a switch of the server's state that has begun; fails where none has, or where a step fails.
# Needs: root.
# A new state is built in next.part and becomes next by one rename. From then on it is the state:
# whoever comes first (the switch itself, the start of the server, the next change) moves it into
# place, and may be cut off at any step: what is still in next is still to be done.
settle() {
  [ -d "$root/next" ] || return 1
  local name end former
  former=$root/former/$(cat "$root/next/.name") || return
  mkdir -p "$former" || return
  for name in mlflow.db basic_auth.db server.env .server-id .mlflow_auth_config start_mlflow_server.sh venv; do
    if [ -e "$root/next/$name" ] || [ -L "$root/next/$name" ]; then
      # A database's logs belong to the file beside which they were written.
      for end in '' -wal -shm -journal; do
        if [ -e "$root/$name$end" ] || [ -L "$root/$name$end" ]; then
          put_aside "$name$end" || return
        fi
      done
      mv -fT "$root/next/$name" "$root/$name" || return
    fi
    for end in -wal -journal; do
      if [ -e "$root/next/$name$end" ]; then
        mv -fT "$root/next/$name$end" "$root/$name$end" || return
      fi
    done
  done
  if [ -e "$root/next/.aside" ]; then
    for name in $(cat "$root/next/.aside"); do
      for end in '' -wal -shm -journal; do
        if [ -e "$root/$name$end" ]; then put_aside "$name$end" || return; fi
      done
    done
  fi
  if [ -e "$root/next/.about.json" ]; then mv -f "$root/next/.about.json" "$former/about.json" || return; fi
  # A state that was given back is not kept a second time.
  if [ -e "$root/next/.gives-back" ]; then rm -rf "$root/former/$(cat "$root/next/.gives-back")"; fi
  # What this state replaces stays closed to other hosts that still use it.
  rm -f "$root/.closed"
  sync -f "$root"
  # At an end by one rename as well: half a folder would be a switch that nobody can finish.
  rm -rf "$root/next.done"
  mv -T "$root/next" "$root/next.done" && rm -rf "$root/next.done"
}
put_aside() {
  case $1 in
    # What finishes a switch after a reboot must be there at every moment.
    start_mlflow_server.sh) cp -p "$root/$1" "$former/$1" ;;
    *) mv -fT "$root/$1" "$former/$1" ;;
  esac
}
# Open what was closed to other hosts for a state that did not come to be. Needs: root.
open_again() {
  local uri place name
  if [ ! -s "$root/.closed" ]; then return; fi
  while read -r uri; do
    uri=${uri/+psycopg2/} place=${uri%%\?*} name=${place##*/}
    # By the database that every server has: this one lets nobody in.
    PGPASSFILE=$root/.pgpass psql -qwX "${place%/*}/postgres${uri#"$place"}" < /dev/null \
      -c "alter database \"$name\" connection limit -1" || return
  done < "$root/.closed"
  rm -f "$root/.closed"
}
