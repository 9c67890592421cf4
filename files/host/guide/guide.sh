# Words for what is done to a server that the guide made. Needs: root, unit, site, link, and guide_service.py.
ours=("/etc/systemd/system/$unit.service" "/etc/systemd/system/$unit.socket" "/etc/tmpfiles.d/$unit.conf" "$site")
# What it starts must not inherit the locks.
guide() { python3 "$here/guide_service.py" action="$1" root="$root" unit="$unit" 8>&- 9>&-; }
