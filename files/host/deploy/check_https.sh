# Whether the name is served with its certificate, and refused nobody. Needs: tls_name, certificate.
fingerprint() { openssl x509 -noout -fingerprint -sha256 2> /dev/null; }
served() { openssl s_client -connect 127.0.0.1:443 -servername "$tls_name" < /dev/null 2> /dev/null | fingerprint; }
check_https() {
  local code wanted n
  wanted=$(as_root cat "$certificate" | fingerprint)
  # A reloaded nginx takes a moment.
  for n in $(seq 20); do
    if [ "$(served)" = "$wanted" ]; then break; fi
    [ "$n" != 20 ] || fail "nginx does not show the certificate of $tls_name on port 443. See why: sudo tail /var/log/nginx/error.log"
    sleep 0.2
  done
  # With a login that is nobody's: without one nginx itself answers, and MLflow never sees the name.
  code=$(curl -sk -u :nobody --noproxy '*' --max-time 60 --resolve "$tls_name:443:127.0.0.1" -o /dev/null -w '%{http_code}' \
    -H "Origin: https://$tls_name" -H 'Content-Type: application/json' -d '{}' "https://$tls_name/api/2.0/mlflow/experiments/create") || true
  [ "$code" = 401 ] || fail "https://$tls_name answers $code without a login, where 401 is right. Type: ./fab logs"
}
