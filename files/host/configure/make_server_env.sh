# Make server.env once: a new secret key would end every session and every CSRF token. What stands in
# one that lost its key stays.
if ! grep -qs '^MLFLOW_FLASK_SERVER_SECRET_KEY=' "$root/server.env"; then
  {
    echo "# Made once and never rewritten; part of every backup."
    echo "MLFLOW_FLASK_SERVER_SECRET_KEY=$(python3 -c 'import secrets; print(secrets.token_hex(32))')"
    if grep -qs '^MLFLOW_BACKEND_STORE_URI=' "$root/server.env"; then
      grep -v '^#' "$root/server.env"
    else
      cat "$here/stores"
      grep -sv '^#' "$root/server.env" || true
    fi
  } > "$root/server.env.part"
  mv -f "$root/server.env.part" "$root/server.env"
fi
