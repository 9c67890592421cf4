# Tell all about the certificate of a name. Needs: name, certificate (its file), own (yes or no).
about() { openssl x509 -noout "$@" 2> /dev/null | sed 's/^[a-zA-Z0-9 ]*= *//'; }
served() { openssl s_client -connect 127.0.0.1:443 -servername "$name" < /dev/null 2> /dev/null; }
file=$(as_root cat "$certificate" 2> /dev/null) || true
if [ -n "$file" ]; then
  report issuer "$(about -issuer -nameopt RFC2253 <<< "$file")"
  report begins "$(date -d "$(about -startdate <<< "$file")" +%s)"
  report ends "$(date -d "$(about -enddate <<< "$file")" +%s)"
  report fingerprint "$(about -fingerprint -sha256 <<< "$file")"
  report names "$(openssl x509 -noout -ext subjectAltName <<< "$file" 2> /dev/null | grep -oE '(DNS|IP Address):[^, ]+' | sed 's/.*://' | xargs)"
fi
shown=$(served) || true
report served "$(about -fingerprint -sha256 <<< "$shown")"
report resolves "$(getent ahosts "$name" | awk '{print $1}' | sort -u | xargs)"
if [ "$own" = no ]; then
  report timer "$(systemctl is-active certbot.timer 2> /dev/null)"
  report failed "$(systemctl is-failed certbot.service 2> /dev/null)"
  next=$(systemctl show certbot.timer -p NextElapseUSecRealtime --value 2> /dev/null)
  if [ -n "$next" ]; then report next "$(date -d "$next" +%s)"; fi
fi
