# Look for what is not as safe as it could be, beside what symptoms.sh looks for, and change nothing.
# Needs: root, unit, and what symptoms.sh has and defines. Prints what that prints.

# The login's own files are read without root; sshd and the firewall only root may ask.
look_at_doors() {
  need_root || return
  as_root sshd -T 2> /dev/null | while read -r key value; do
    case $key in permitrootlogin | passwordauthentication | permitemptypasswords) report sshd "$key $value" ;; esac
  done
  report passworded "$(as_root awk -F: '$2 ~ /^\$/ {print $1}' /etc/shadow 2> /dev/null | paste -sd ' ')"
  if as_root nft list ruleset 2> /dev/null | grep -qE 'policy drop|\b(drop|reject)\b' ||
    as_root iptables -S 2> /dev/null | grep -qE -- '-P INPUT DROP|-j (DROP|REJECT)'; then
    report firewall yes
  fi
  report upgrades "$(apt-config dump APT::Periodic::Unattended-Upgrade 2> /dev/null | cut -d '"' -f 2)"
  command -v unattended-upgrade > /dev/null && report upgrader yes
  true
}

# What nginx does where the site does not say: the whole file's word counts.
look_at_site() {
  need_root || return
  local site=/etc/nginx/sites-enabled/$unit
  [ -e "$site" ] || site=/etc/nginx/conf.d/$unit.conf
  as_root cat "$site" 2> /dev/null > "$here/site" || return
  sed 's/#.*//; s/^[[:space:]]*//' "$here/site" | grep -E '^(listen|ssl_protocols|ssl_certificate_key|add_header Strict-Transport-Security)' |
    while read -r line; do report site "$line"; done
  if ! grep -qE '^[^#]*ssl_protocols' "$here/site"; then
    report site "$(sed 's/#.*//; s/^[[:space:]]*//' /etc/nginx/nginx.conf | grep -E '^ssl_protocols' | tail -n 1)"
  fi
  sed -n 's/#.*//; s/^[[:space:]]*ssl_certificate_key[[:space:]]*\(.*\);.*/\1/p' "$here/site" | sort -u |
    while read -r key; do report key "$(as_root stat -Lc '%a %U %n' "$key" 2> /dev/null)"; done
}

look_at_units() {
  systemctl list-unit-files --no-legend --plain "$unit.service" "$unit-*.service" 2> /dev/null |
    while read -r name _; do
      # Another environment's are its own audit's.
      case ${name#"$unit"} in .service | -backup.service | -backup-verify.service | -stream.service) ;; *) continue ;; esac
      report exposure "$(systemd-analyze security --no-pager "$name" 2> /dev/null |
        sed -n 's/.*Overall exposure level for .*: \([0-9.]*\) .*/\1/p') $name"
    done
  for file in "/etc/systemd/system/$unit"*.service "/etc/systemd/system/$unit.socket" "/etc/nginx/sites-available/$unit" "/etc/nginx/conf.d/$unit.conf"; do
    [ -e "$file" ] && [ -n "$(find "$file" \( ! -user root -o -perm /022 \) 2> /dev/null)" ] && report loose "$file"
  done
  # Not in data/, which is closed to others: what is called what there, the server's process may choose.
  find "$root" -xdev \( -name releases -o -name tools -o -name stream -o -name data \) -prune -o \
    \( -type f -o -type d \) -perm /022 -print 2> /dev/null | head -n 5 |
    while read -r file; do report loose "$file"; done
  true
}

look_at_secrets() {
  need_root && timeout "$patience" python3 "$here/audit_secrets.py" root="$root" unit="$unit"
}

look_at_packages() {
  for info in "$root"/venv/lib/python3*/site-packages/*.dist-info; do
    [ -d "$info" ] || return
    info=${info##*/}
    report package "${info%.dist-info}"
  done
}

look_at_passwords() {
  as_mlflow timeout "$patience" "$root/venv/bin/python" "$here/audit_passwords.py" root="$root"
}

look_at_users() {
  need_root || return
  # Root's alone to read; the rest of that program is the login's business.
  as_root sh -c 'zcat -f "$@" 2> /dev/null' sh "/var/log/nginx/$unit.access.log"* |
    as_mlflow timeout "$patience" "$root/venv/bin/python" "$here/audit_users.py" root="$root"
}

look_at_places() {
  as_mlflow timeout "$patience" "$root/venv/bin/python" "$here/audit_places.py" root="$root"
}

look_at_parts doors site units secrets packages passwords users places
