# Say in one line why certbot had no success; its output is on standard input.
why_not() {
  local said
  said=$(cat)
  # What the authority saw comes first; then what kept certbot from asking it.
  { sed -n 's/^ *Detail: *//p' <<< "$said" | head -n 1 | grep . ||
    sed -n 's/^Failed to renew certificate .* with error: *//p' <<< "$said" | head -n 1 | grep . ||
    grep -vE '^ *$|^Saving debug log|^Ask for help|^Some challenges|^- - -|^Processing' <<< "$said" | tail -n 1; } |
    sed -E 's/^[A-Za-z.]*Error: //; s/\.$//' | cut -c1-400
}
