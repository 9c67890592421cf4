# Rehearse a migration on a copy while the server runs. Needs: root, python (the new release's), and tidy.sh and
# switch.sh. Makes the file $migrates where there is something to migrate.
migrates=$here/migrates
give_up_next
on_failure() { give_up_next; }
"$python" "$here/rehearse.py" root="$root" folder="$root/next.part" migrates="$migrates"
give_up_next
on_failure() { :; }
