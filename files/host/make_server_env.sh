# Make server.env once: a new secret key would end every session and every CSRF token. What stands in
# one that lost its key stays.
line() { grep -s "^$1=" "$root/server.env"; }
if ! line MLFLOW_FLASK_SERVER_SECRET_KEY > /dev/null; then
  {
    echo "# Made once and never rewritten; part of every backup."
    echo "MLFLOW_FLASK_SERVER_SECRET_KEY=$(python3 -c 'import secrets; print(secrets.token_hex(32))')"
    line MLFLOW_BACKEND_STORE_URI || printf "MLFLOW_BACKEND_STORE_URI='%s'\n" "$(cat "$here/backend_store_uri")"
    grep -sv -e '^#' -e '^MLFLOW_BACKEND_STORE_URI=' "$root/server.env" || true
  } > "$root/server.env.part"
  mv -f "$root/server.env.part" "$root/server.env"
fi
