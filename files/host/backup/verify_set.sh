# Have verify_set.py prove a backup in a folder of its own, which goes whatever becomes of it. Needs: root, tidy.sh and backup_secrets.sh.
folder=$root/backups/verifying
clean_up() { rm -rf "$folder"; tidy_databases; }
clean_up
on_failure() { clean_up; }
for_backups "$root/venv/bin/python" "$here/verify_set.py" root="$root" folder="$folder"
clean_up
