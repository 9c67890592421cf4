# Take over the server that the guide made, already rehearsed and backed up. Needs: root, unit, release
# (the new one) and its python, version (the old one's), aside.py, switch.sh, guide.sh, and "$here"/start
# and auth. Steps that follow and fail give it back as well.
next=$root/next.part
theirs=$version-guide
former=$(date -u +%Y%m%dT%H%M%SZ)-guide-$version

old_server_back() {
  if [ -e "$root/former/$former/about.json" ]; then
    give_back adopt "$former" "$former-failed"
    rm -rf "$root/former/$former-failed"
  fi
  rm -rf "$next"
  guide start
}

if ! output=$(as_root nginx -t 2>&1); then
  fail "nginx refuses its configuration: $(grep -m1 -o 'emerg.*' <<< "$output"). Fix that file, then type ./fab deploy again. Nothing was changed."
fi
guide note
say "stop the guide's server"
on_failure() { old_server_back; }
paused=$SECONDS
guide stop
say "it ended; try its databases with MLflow ${release%-*}"
# What its programs name as their own place is $root/venv: it runs from there alone.
if [ ! -L "$root/venv" ]; then
  ln -sfn "releases/$theirs" "$root/venv.part"
  rm -rf "${root:?}/releases/$theirs"
  mv -T "$root/venv" "$root/releases/$theirs"
  # Cut off here, the mark in it tells the next who comes whose it is.
  mv -fT "$root/venv.part" "$root/venv"
fi
rm -rf "$next"
mkdir -m 0700 "$next"
ln -s "releases/$release" "$next/venv"
install -m 0700 "$here/start" "$next/start_mlflow_server.sh"
install -m 0600 "$here/auth" "$next/.mlflow_auth_config"
# By SQLite itself: a journal that a killed server left is played back.
"$python" "$here/aside.py" root="$root" folder="$next"
guide retire
switch adopt "$former"
say "the old server is kept in $root/releases/$theirs, its databases and files in $root/former/$former"
forget_old_states
