# Tell all about the certificate of a name. Needs: name, certificate (its file), own (yes or no).
tell() { printf '@report %s\t%s\n' "$1" "$2"; }
about() { openssl x509 -noout "$@" 2> /dev/null | sed 's/^[a-zA-Z0-9 ]*= *//'; }
served() { openssl s_client -connect 127.0.0.1:443 -servername "$name" < /dev/null 2> /dev/null; }
file=$(as_root cat "$certificate" 2> /dev/null) || true
if [ -n "$file" ]; then
  tell issuer "$(about -issuer -nameopt RFC2253 <<< "$file")"
  tell begins "$(date -d "$(about -startdate <<< "$file")" +%s)"
  tell ends "$(date -d "$(about -enddate <<< "$file")" +%s)"
  tell fingerprint "$(about -fingerprint -sha256 <<< "$file")"
  tell names "$(openssl x509 -noout -ext subjectAltName <<< "$file" 2> /dev/null | grep -oE '(DNS|IP Address):[^, ]+' | sed 's/.*://' | xargs)"
fi
shown=$(served) || true
tell served "$(about -fingerprint -sha256 <<< "$shown")"
tell resolves "$(getent ahosts "$name" | awk '{print $1}' | sort -u | xargs)"
if [ "$own" = no ]; then
  tell timer "$(systemctl is-active certbot.timer 2> /dev/null)"
  tell failed "$(systemctl is-failed certbot.service 2> /dev/null)"
  next=$(systemctl show certbot.timer -p NextElapseUSecRealtime --value 2> /dev/null)
  if [ -n "$next" ]; then tell next "$(date -d "$next" +%s)"; fi
fi
