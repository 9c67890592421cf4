# Take this server out of what balancers choose from, and bring it back. Needs: unit.
# The mark never outlives the task: with /run it goes at a reboot, else here, done or failed.
# An argument names what else a failure has to undo from here on.
drain() {
  local n quiet=0
  undoing=${1:-:}
  as_root touch "/run/$unit.drain"
  on_failure() { "$undoing"; undrain; }
  say "have balancers send nothing new here"
  sleep 3 # they look each second
  for n in $(seq 600); do
    if [ "$(under_way)" = 0 ]; then quiet=$((quiet + 1)); else quiet=0; fi
    if [ $quiet = 5 ]; then return; fi
    sleep 0.1
  done
  say "requests are under way after a minute still: they are finished, or wait"
}
undrain() { as_root rm -f "/run/$unit.drain"; }
# nginx makes one connection a request.
under_way() { ss -Hx state established | grep -c " /run/$unit.sock " || true; }
# What balancers ask, but for the mark: a login that is nobody's has MLflow ask its database.
await_usable() {
  local n
  for n in $(seq 100); do
    if [ "$(curl -s -o /dev/null -w '%{http_code}' --max-time 10 -u :nobody --unix-socket "/run/$unit.sock" http://localhost/version)" = 401 ]; then
      return
    fi
    sleep 0.3
  done
  fail "The server answers, but cannot ask its database of users. See why: ./fab doctor"
}
come_back() {
  undrain
  on_failure() { :; }
  say "balancers send requests here again"
  sleep 3 # it takes two good answers
}
