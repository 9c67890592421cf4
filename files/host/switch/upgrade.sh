# Switch to another release, on databases brought to its schema. Needs: root, unit, store (sqlite or postgresql), release (the new
# one), current (the one that runs), well (what deploy writes down when all is), what rehearse.sh needs and makes, aside.py, and "$here"/start.
next=$root/next.part
former=$(date -u +%Y%m%dT%H%M%SZ)-$current
lay_out() {
  give_up_next
  mkdir -m 0700 "$next"
  ln -s "releases/$release" "$next/venv"
  install -m 0700 "$here/start" "$next/start_mlflow_server.sh"
}
drain
on_failure() { serve_again; }
paused=$SECONDS
if [ -e "$migrates" ]; then
  say "stop the server (requests wait)"
  hold
  stop_server
  if [ "$store" = postgresql ]; then close_to_others; fi
  lay_out
  # What it starts must not keep the lock from the server's start.
  "$python" "$here/aside.py" root="$root" folder="$next" 8>&- 9>&-
else
  lay_out
  say "restart the server (requests wait)"
  hold
  stop_server
fi
change_over upgrade
say "writes waited for $((SECONDS - paused)) s; the former state is kept in $root/former/$former"
echo "$well" > "$root/.well"
forget_old_states
