# Make server.env once: a new secret key would end every session and every CSRF token.
if [ ! -e "$root/server.env" ]; then
  {
    echo "# Made once and never rewritten; part of every backup."
    echo "MLFLOW_FLASK_SERVER_SECRET_KEY=$(python3 -c 'import secrets; print(secrets.token_hex(32))')"
    printf "MLFLOW_BACKEND_STORE_URI='%s'\n" "$(cat "$here/backend_store_uri")"
  } > "$root/server.env.part"
  mv -f "$root/server.env.part" "$root/server.env"
fi
