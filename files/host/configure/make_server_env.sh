# Make server.env, or what it lacks, and keep what it says: a new secret key would end every session and
# every CSRF token, a new one for webhooks would make the secrets of those that there are unreadable.
lacks() { ! grep -qs "^$1=" "$root/server.env"; }
keyed() { if lacks "$1"; then echo "$1=$(python3 -c "$2")"; fi; }
{
  echo "# Made once and never rewritten; part of every backup."
  keyed MLFLOW_FLASK_SERVER_SECRET_KEY 'import secrets; print(secrets.token_hex(32))'
  keyed MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY \
    'import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())'
  if lacks MLFLOW_BACKEND_STORE_URI; then cat "$here/stores"; fi
  grep -sv '^#' "$root/server.env" || true
} > "$root/server.env.part"
mv -f "$root/server.env.part" "$root/server.env"
