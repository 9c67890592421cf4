# Finish a switch of the server's state that has begun; fails where none has, or where a step fails.
# Needs: root.
# A new state is built in next.part and becomes next by one rename. From then on it is the state:
# whoever comes first (the switch itself, the start of the server, the next change) moves it into
# place, and may be cut off at any step: what is still in next is still to be done.
settle() {
  [ -d "$root/next" ] || return 1
  local name end at former
  former=$root/former/$(cat "$root/next/.name") || return
  mkdir -p "$former" || return
  keep_apart || return
  for name in mlflow.db basic_auth.db server.env .server-id .mlflow_auth_config start_mlflow_server.sh venv; do
    find_place
    if [ -e "$root/next/$name" ] || [ -L "$root/next/$name" ]; then
      # A database's logs belong to the file beside which they were written.
      for end in '' -wal -shm -journal; do
        if [ -e "$at/$name$end" ] || [ -L "$at/$name$end" ]; then
          put_aside "$name$end" || return
        fi
      done
      mv -fT "$root/next/$name" "$at/$name" || return
    fi
    for end in -wal -journal; do
      if [ -e "$root/next/$name$end" ]; then
        mv -fT "$root/next/$name$end" "$at/$name$end" || return
      fi
    done
  done
  if [ -e "$root/next/.aside" ]; then
    for name in $(cat "$root/next/.aside"); do
      find_place
      for end in '' -wal -shm -journal; do
        if [ -e "$at/$name$end" ]; then put_aside "$name$end" || return; fi
      done
      if [ -L "$root/$name" ]; then rm -f "$root/$name" || return; fi
    done
  fi
  keep_apart || return
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
    start_mlflow_server.sh) cp -p "$at/$1" "$former/$1" ;;
    *) mv -fT "$at/$1" "$former/$1" ;;
  esac
}
# Say in `at` where a part of the state called `name` lies.
find_place() {
  at=$root
  case $name in *.db) if [ -d "$root/data" ]; then at=$root/data; fi ;; esac
}
# Databases lie in data/, which alone the server's unit may write, with links of their names in root;
# without data/, as in a server of the guide's, in root itself. While nobody has them open, this moves
# those that lie in root. It is one rename: until then what lies in root is the database, wholly.
keep_apart() {
  local name end
  if [ ! -d "$root/data" ]; then return 0; fi
  for name in mlflow.db basic_auth.db; do
    if [ -f "$root/$name" ] && [ ! -L "$root/$name" ]; then
      # Somebody laid this one there by hand; the one that it replaces stays.
      if [ -e "$root/data/$name" ] && [ ! "$root/$name" -ef "$root/data/$name" ]; then
        for end in '' -wal -journal; do
          if [ -e "$root/data/$name$end" ]; then
            mv -fT "$root/data/$name$end" "$root/data/former.$name$end" || return
          fi
        done
      fi
      for end in -wal -journal -shm ''; do
        rm -rf "$root/data/$name$end" || return
        if [ "$end" != -shm ] && [ -e "$root/$name$end" ]; then
          ln "$root/$name$end" "$root/data/$name$end" || return
        fi
      done
      link_database || return
    elif [ -e "$root/data/$name" ] && [ ! -L "$root/$name" ]; then
      link_database || return
    fi
    # They belonged to what is a link now.
    if [ -L "$root/$name" ]; then
      for end in -wal -journal -shm; do
        if [ -e "$root/$name$end" ]; then rm -f "$root/$name$end" || return; fi
      done
    fi
  done
}
link_database() {
  rm -f "$root/$name.part"
  ln -s "data/$name" "$root/$name.part" && mv -fT "$root/$name.part" "$root/$name"
}
# Undo that, for a server that knows no data/.
keep_together() {
  local name end
  for name in mlflow.db basic_auth.db; do
    if [ -L "$root/$name" ] && [ -f "$root/data/$name" ]; then
      for end in -wal -journal; do
        if [ -e "$root/data/$name$end" ]; then ln -f "$root/data/$name$end" "$root/$name$end" || return; fi
      done
      ln -f "$root/data/$name" "$root/$name.part" && mv -fT "$root/$name.part" "$root/$name" || return
    fi
    if [ ! -L "$root/$name" ]; then
      rm -rf "$root/data/.$name-litestream" || return
      for end in -wal -journal -shm ''; do rm -f "$root/data/$name$end" || return; done
    fi
  done
  rmdir "$root/data" 2> /dev/null || true
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
