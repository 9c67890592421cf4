# Renew a certificate by certbot, now. Needs: name, force (yes or no), and why_not.
# A failure leaves the one that there is.
certificate=/etc/letsencrypt/live/$name/fullchain.pem
ends() { as_root openssl x509 -noout -enddate -in "$certificate" | cut -d= -f2; }
before=$(ends)
forced=''
if [ "$force" = yes ]; then forced=--force-renewal; fi
# shellcheck disable=SC2086
if ! output=$(as_root certbot renew --non-interactive --no-random-sleep-on-renew --cert-name "$name" $forced 2>&1); then
  printf '%s\n' "$output"
  fail "The certificate of $name was not renewed: $(why_not <<< "$output"). The one that is there holds until $before."
fi
# A failure of the timer's is made up for.
as_root systemctl reset-failed certbot.service 2> /dev/null || true
after=$(ends)
report "$([ "$before" = "$after" ] && echo same || echo new)" "$(date -d "$after" +%s)"
