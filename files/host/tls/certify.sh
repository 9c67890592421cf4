# Have an ACME authority certify a name, and nobody served otherwise meanwhile. Needs: unit, name,
# challenge (where nginx includes its answer from), email, authority (its address), addresses (the host's own), and in "$here" challenge.conf (nginx's
# site for the proof) and perhaps authority.pem (whom to trust for the authority's own TLS).
webroot=/var/www/$unit
ours=no # whether the name points to an address that the host knows as its own

own_port() { # port
  local who
  who=$(as_root ss -Hltnp "sport = :$1" | grep -v '"nginx"' | head -n 1) || true
  if [ -n "$who" ]; then
    fail "Port $1 of the host is taken by $(sed -n 's/.*users:(("\([^"]*\)",pid=\([0-9]*\).*/\1 (process \2)/p' <<< "$who"). A certificate needs it: end that program, then run the same command again."
  fi
}
nobody_elses() {
  local others
  others=$(as_root grep -lsE "^[[:space:]]*server_name([[:space:]].*)?[[:space:]]$name[[:space:];]" /etc/nginx/sites-enabled/* /etc/nginx/conf.d/*.conf |
    grep -vE "/($unit|$unit-challenge)(\.conf)?$" | head -n 1) || true
  if [ -n "$others" ]; then
    fail "$name is served by $others already. Give this server another name, or take it away there."
  fi
}
resolved() {
  found=$(getent ahosts "$name" | awk '{print $1}' | sort -u | xargs) || true
  [ -n "$found" ] ||
    fail "$name does not resolve: no DNS record names it. Make one that points to this host ($addresses), wait until it is known, then run the same command again."
  say "$name resolves to $found"
}
# What nginx answers for the name now comes from here; a broken one would be seen by everybody.
answer_authority() {
  as_root install -d -m 0755 "$webroot" "$webroot/.well-known" "$webroot/.well-known/acme-challenge"
  place_as_root "$here/challenge.conf" "$challenge" 0644
  if ! output=$(as_root nginx -t 2>&1); then
    printf '%s\n' "$output"
    fail "nginx refuses its configuration: $(grep -m1 -o 'emerg.*' <<< "$output"). Fix that file, then run the same command again."
  fi
  as_root systemctl reload-or-restart nginx
}
no_answer() {
  as_root rm -f "$challenge"
  as_root systemctl reload-or-restart nginx || true
}
# The authority allows few failures: what can be seen from here is not asked of it.
reached() {
  local token place got code address
  token=$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n')
  place=.well-known/acme-challenge/$token
  as_root tee "$webroot/$place" > /dev/null <<< "$token"
  as_root chmod 0644 "$webroot/$place"
  for address in $found; do
    case " $addresses " in *" $address "*) ours=yes ;; esac
  done
  # A reloaded nginx takes a moment.
  for _ in 1 2 3; do
    code=0
    got=$(curl -s --noproxy '*' --max-time 5 "http://$name/$place") || code=$?
    if [ "$got" = "$token" ]; then break; fi
    if [ $code = 28 ]; then break; fi
    sleep 0.3
  done
  as_root rm -f "$webroot/$place"
  if [ "$got" = "$token" ]; then return; fi
  case $code in
    0) how="another program answers there" ;;
    7) how="no connection is possible" ;;
    28) how="nobody answers" ;;
    *) how="curl says $code" ;;
  esac
  if [ $ours = yes ] && [ $code = 0 ]; then
    fail "Port 80 of $name ($found) is answered by something else than this host's nginx. Have it come through to this host, then run the same command again."
  fi
  if [ $ours = yes ]; then
    fail "Port 80 of $name ($found) is closed: $how. Open it in the firewall or security group, for everybody, then run the same command again."
  fi
  if [ $code = 0 ]; then
    fail "$name points to $found, which is not this host ($addresses): $how. Correct its DNS record, then run the same command again."
  fi
  warn "$name points to $found, which is not one of this host's addresses ($addresses), and from here $how; the authority will tell"
}
get_certbot() {
  if ! command -v certbot > /dev/null; then
    say "install with apt: certbot"
    packages=certbot
    install_packages
  fi
  # Debian's own timer, twice a day.
  as_root systemctl enable --quiet --now certbot.timer
}
trust_authority() {
  if [ -e "$here/authority.pem" ]; then
    place_as_root "$here/authority.pem" "/usr/local/share/ca-certificates/$unit-authority.crt" 0644
    as_root update-ca-certificates > /dev/null 2>&1
  fi
}
renewal=/etc/letsencrypt/renewal/$name.conf
hook="systemctl reload nginx"
ask_authority() {
  local again=''
  # Another authority than before, such as one for trials: its certificate is no use.
  if as_root test -e "$renewal" && ! as_root grep -qxF "server = $authority" "$renewal"; then again=--force-renewal; fi
  # shellcheck disable=SC2086
  if ! output=$(as_root certbot certonly --non-interactive --agree-tos --no-eff-email --email "$email" \
    --server "$authority" --webroot --webroot-path "$webroot" --domain "$name" --cert-name "$name" \
    --key-type ecdsa --keep-until-expiring --deploy-hook "$hook" $again 2>&1); then
    printf '%s\n' "$output"
    if [ $ours = no ]; then where=" ($name points to $found, this host has $addresses)"; else where=''; fi
    fail "No certificate for $name: $(why_not <<< "$output")$where. Everything is as it was; fix that, then run the same command again."
  fi
  # One that was kept has the options of its own time.
  as_root sed -i -e '/^autorenew/d' -e '/^renew_hook/d' -e "/^\[renewalparams\]/a renew_hook = $hook" "$renewal"
}

own_port 80
own_port 443
nobody_elses
resolved
on_failure() { no_answer; }
answer_authority
reached
get_certbot
trust_authority
say "ask $(cut -d/ -f3 <<< "$authority") for a certificate of $name"
ask_authority
# From here on the server's own site answers.
as_root rm -f "$challenge"
