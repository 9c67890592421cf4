# Say in one line why certbot had no success; its output is on standard input.
why_not() {
  local said
  said=$(cat)
  # What the authority saw comes first; then what kept certbot from asking it.
  sed -n 's/^ *Detail: *//p' <<< "$said" | head -n 1 | grep . ||
    grep -vE '^ *$|^Saving debug log|^Ask for help|^Some challenges|^All renewals|^- - -|^Processing|parse failure|^1 renew' <<< "$said" | tail -n 1
}
