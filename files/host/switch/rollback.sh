# Go back to a former state. Needs: root, unit, former (its name), was (the task that left it), release (that
# served it), current (the release that runs),
# well (what deploy writes down when all is), "$here"/start (for that release).
aside=$(date -u +%Y%m%dT%H%M%SZ)-$current
if [ ! -d "$root/former/$former" ]; then fail "The former state $former is gone. Type ./fab rollback again."; fi
if [ ! -e "$root/releases/$release/.complete" ]; then fail "The release $release, which served that state, is no longer here. Type: ./fab upgrade --to ${release%-*}"; fi
drain
paused=$SECONDS
say "stop the server (requests wait)"
hold
on_failure() { serve_again; }
stop_server
start=$here/start give_back rollback "$former" "$aside" "$release"
on_failure() {
  hold
  if stop_server && give_back "$was" "$aside" "$former" "$current"; then serve_again; fi
}
release_hold
serve
await_usable
on_failure() { :; }
come_back
say "writes waited for $((SECONDS - paused)) s; what was replaced is kept in $root/former/$aside"
echo "$well" > "$root/.well"
forget_old_states
