# Install Debian packages without a question. Needs: packages (words). Where there is a function
# `beside`, it runs beside the most of it; first (words) are the packages that it needs.
exec 7>&1 # where apt_now tells: apt's own output is kept back
# Tell what apt says of its work to Status-Fd (its README.progress-reporting), and pass on the rest.
apt_now() {
  local line former='' what
  while IFS= read -r line; do
    case $line in
      pmstatus:* | dlstatus:*)
        what=${line##*:}
        what=${what% (*}
        if [ "$what" != "$former" ]; then now "apt: ${what,}" >&7; fi
        former=$what
        ;;
      *) printf '%s\n' "$line" ;;
    esac
  done
}
apt_get() {
  local told='' started=$SECONDS
  until output=$(as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 APT_LISTCHANGES_FRONTEND=none \
    apt-get -q -y -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
    -o Dpkg::Use-Pty=0 -o Acquire::http::Timeout=15 -o Acquire::Retries=2 -o APT::Status-Fd=1 "$@" 2>&1 7>&- | apt_now); do
    case $output in
      *"Could not get lock"* | *"Unable to lock"* | *"Unable to acquire the dpkg frontend lock"*)
        holder=$(sed -n 's/.*held by process \(.*\)$/\1/p' <<< "$output" | head -n 1)
        if [ -z "$told" ]; then
          say "apt is busy with something else (process ${holder:-unknown}), as on every new instance; waiting"
          told=yes
        fi
        [ $((SECONDS - started)) -lt 900 ] ||
          fail "apt's lock was held for 15 minutes by process ${holder:-unknown}. Wait for it to end, or end it, then type ./fab install again."
        sleep 2
        ;;
      *"dpkg was interrupted"*)
        say "mending an interrupted package installation"
        as_root env DEBIAN_FRONTEND=noninteractive dpkg --configure -a --force-confdef --force-confold
        ;;
      *)
        printf '%s\n' "$output"
        no_network <<< "$output$updated"
        return 1
        ;;
    esac
  done
}
no_network() {
  if grep -qE 'Temporary failure resolving|Could not resolve|Could not connect|Connection timed out|Network is unreachable|Failed to fetch'; then
    fail "The host cannot reach its package archive: no outbound network, DNS or proxy. Allow outbound HTTP and HTTPS, then type ./fab install again."
  fi
}

updated=
# Without descriptions in other languages, which nobody reads here; those that there are stay.
apt_get -o Acquire::Languages=none -o APT::Get::List-Cleanup=false update
updated=$output
if declare -F beside > /dev/null; then
  # shellcheck disable=SC2086
  if [ -n "$first" ]; then apt_get install --no-install-recommends $first; fi
  (beside) > "$here/beside.log" 2>&1 7>&- &
  aside=$!
  # It goes on to its end, and the next installation finds what it made.
  on_failure() { wait; }
fi
# Debian starts a freshly installed nginx on 0.0.0.0:80, before anybody said that it should.
fresh_nginx=no
if [[ " $packages " == *" nginx "* ]] && ! dpkg-query -W nginx 2>/dev/null | grep -q .; then
  fresh_nginx=yes
  as_root systemctl mask --runtime --quiet nginx.service
fi
# shellcheck disable=SC2086
apt_get install --no-install-recommends $packages
if [ "$fresh_nginx" = yes ]; then
  default=/etc/nginx/sites-enabled/default
  if [ -L "$default" ] && ! dpkg --verify nginx-common | grep -q sites-available/default; then
    as_root rm -f "$default"
  fi
  # As nginx.org's own package has it.
  default=/etc/nginx/conf.d/default.conf
  if [ -f "$default" ] && ! dpkg --verify nginx | grep -q "$default"; then as_root rm -f "$default"; fi
  as_root systemctl unmask --runtime --quiet nginx.service
fi
exec 7>&-
if declare -F beside > /dev/null; then
  # Whatever kept it from its end then shows.
  wait "$aside" || beside
  on_failure() { :; }
fi
