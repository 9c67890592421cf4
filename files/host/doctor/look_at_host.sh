# Look for what an operator of a Linux host would check first. Needs: what symptoms.sh has, and names (whose
# addresses the host must find out). Prints `@report <key><TAB><value>` lines.

# Whether a name server answers at all: that it knows no such name is an answer, too. A second for each
# try, as every request of apt, uv, certbot and AWS's own tools would have to wait for all of them.
look_at_names() {
  [ -n "$names" ] || return 0
  # shellcheck disable=SC2086 # names without spaces
  RES_OPTIONS="timeout:1 attempts:1" timeout "$patience" python3 "$here/look_at_names.py" names="$names"
}

look_at_machine() {
  report memory "$(awk '{kb[$1] = $2}
    END {print kb["MemTotal:"], kb["MemAvailable:"], kb["SwapTotal:"] + 0, kb["SwapFree:"] + 0}' /proc/meminfo)"
  [ -n "$(ip route show default 2> /dev/null; ip -6 route show default 2> /dev/null)" ] || report no_route yes
  for masked in "$unit.service" "$unit.socket" nginx.service; do
    [ "$(systemctl show "$masked" -p LoadState --value 2> /dev/null)" = masked ] && report masked "$masked"
  done
  need_root || return
  # An update that was cut off; apt installs nothing until it is finished.
  said=$(as_root dpkg --audit) || return
  broken=$(awk '/^ / {print $1}' <<< "$said" | head -n 5 | xargs)
  if [ -n "$broken" ] || [ -n "$(ls -A /var/lib/dpkg/updates 2> /dev/null)" ]; then report dpkg "$broken"; fi
  look_at_apt
  as_root journalctl -k --since -1d -n 5000 -o cat --no-pager 2> /dev/null > "$here/kernel"
  report disk_error "$(grep -E 'I/O error|EXT4-fs error|XFS .*(Corruption|error)|Remounting filesystem read-only' "$here/kernel" | tail -n 1 | cut -c1-200)"
  sed -n 's/.*Killed process [0-9]* (\([^)]*\)).*/\1/p' "$here/kernel" | sort | uniq -c |
    while read -r count name; do report killed "$count $name"; done
}

# Who has held one of apt's locks for more than an hour: updates of the whole system take minutes.
look_at_apt() {
  local file holder
  for file in /var/lib/dpkg/lock-frontend /var/lib/dpkg/lock /var/lib/apt/lists/lock; do
    [ -e "$file" ] || continue
    holder=$(awk -v inode=":$(stat -c %i "$file")$" '$2 != "->" && $6 ~ inode {print $5}' /proc/locks | head -n 1)
    [ "${holder:-0}" -gt 0 ] && [ "$(ps -o etimes= -p "$holder" 2> /dev/null || echo 0)" -gt 3600 ] || continue
    report apt_held "$holder $(ps -o comm= -p "$holder")"
    return
  done
}
