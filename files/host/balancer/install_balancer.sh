# Have HAProxy balance between servers. Needs: unit, packages (or empty), port (the one to listen on), "$here"/block and,
# with a certificate of the operator's, "$here"/pem. Whatever else HAProxy does on this host is left as it is;
# a configuration that it refuses is never put in place, and one that does not work is taken back.
if [ -n "$packages" ]; then
  say "install $packages with apt"
  install_packages
fi
folder=/etc/haproxy
file=$folder/haproxy.cfg pem=$folder/$unit.pem
mkdir "$here/former" "$here/wanted"
as_root cat "$file" > "$here/former/haproxy.cfg"
if [ -e "$here/pem" ] && as_root test -e "$pem"; then as_root cat "$pem" > "$here/former/pem"; fi
{
  sed "/^# $unit: by balancer/,/^# $unit: end$/d" "$here/former/haproxy.cfg"
  cat "$here/block"
} > "$here/wanted/haproxy.cfg"

lay() { # from: the configuration, and the certificate where one came
  if [ -e "$here/pem" ]; then
    if [ -e "$1/pem" ]; then place_as_root "$1/pem" "$pem" 0600; else as_root rm -f "$pem"; fi
  fi
  place_as_root "$1/haproxy.cfg" "$file" 0644
}
put_back() {
  lay "$here/former"
  as_root systemctl reload haproxy || as_root systemctl restart haproxy || true
  say "HAProxy has its former configuration"
}
listens() {
  local n
  for n in $(seq 50); do
    if as_root ss -Hltnp "sport = :$port" | grep -q '"haproxy"'; then return; fi
    sleep 0.1
  done
  return 1
}
if [ -e "$here/pem" ]; then
  cp "$here/pem" "$here/wanted/pem"
  place_as_root "$here/wanted/pem" "$pem" 0600
fi
on_failure() { lay "$here/former"; }
if ! said=$(as_root haproxy -c -f "$here/wanted/haproxy.cfg" 2>&1); then
  printf '%s\n' "$said"
  why=$(sed -n "s#$here/wanted/##; s/.*ALERT.*parsing //p" <<< "$said" | head -n 1)
  fail "HAProxy refuses its configuration: $why. Fix that line of $file, then type ./fab balancer again."
fi
say "put $file"
on_failure() { put_back; }
lay "$here/wanted"
as_root systemctl enable --quiet haproxy
as_root systemctl reload-or-restart haproxy || true # what became of it is seen at its port
if ! listens; then
  taken=$(as_root ss -Hltnp "sport = :$port" | sed -n 's/.*users:(("\([^"]*\)",pid=\([0-9]*\).*/\1 (process \2)/p' | head -n 1)
  fail "HAProxy does not listen on port $port${taken:+: it is taken by $taken}. Free it, or see why: sudo journalctl -u haproxy -n 20"
fi
on_failure() { :; }
# It takes two good answers of a server, a second apart, before it gets anything.
sleep 3
