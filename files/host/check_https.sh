# Whether the name is served with its certificate, and refused nobody. Needs: name, certificate.
fingerprint() { openssl x509 -noout -fingerprint -sha256 2> /dev/null; }
served() { openssl s_client -connect 127.0.0.1:443 -servername "$name" < /dev/null 2> /dev/null | fingerprint; }
check_https() {
  local code wanted n
  wanted=$(as_root cat "$certificate" | fingerprint)
  # A reloaded nginx takes a moment.
  for n in $(seq 20); do
    if [ "$(served)" = "$wanted" ]; then break; fi
    [ "$n" != 20 ] || fail "nginx does not show the certificate of $name on port 443. See why: sudo tail /var/log/nginx/error.log"
    sleep 0.2
  done
  code=$(curl -sk --noproxy '*' --max-time 60 --resolve "$name:443:127.0.0.1" -o /dev/null -w '%{http_code}' \
    -H "Origin: https://$name" -H 'Content-Type: application/json' -d '{}' "https://$name/api/2.0/mlflow/experiments/create") || true
  [ "$code" = 401 ] || fail "https://$name answers $code without a login, where 401 is right. Type: ./fab logs"
}
