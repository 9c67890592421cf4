# Look at the named parts (look_at_PART) side by side, so that one that fails or hangs hides no other.
# Needs: patience (the seconds that each may take). Prints what each saw, `@report looked<TAB><part>`
# of one that came to its end, and of another `@report blind<TAB><part> <why>`.
look_at_parts() {
  local part
  declare -A looks
  for part; do
    {
      "look_at_$part"
      case $? in
        0) report looked "$part" ;;
        124) echo "it did not answer within $patience s" >&2 ;;
      esac
    } > "$here/$part.seen" 2> "$here/$part.errors" &
    looks[$part]=$!
  done
  SECONDS=0
  for part; do
    while kill -0 "${looks[$part]}" 2> /dev/null; do
      if [ $SECONDS -gt "$patience" ]; then
        pkill -KILL -P "${looks[$part]}"
        kill -KILL "${looks[$part]}"
        echo "it did not answer within $patience s" >> "$here/$part.errors"
        break
      fi
      sleep 0.05
    done
    cat "$here/$part.seen"
    grep -q "^@report looked" "$here/$part.seen" ||
      report blind "$part $(tail -n 1 "$here/$part.errors" | cut -c1-200)"
  done
}
# Fail, saying what sudo says, where root is needed and cannot be had.
need_root() { as_root true; }
