# Prove that a backup can be restored: fetch and check it, serve it on the side, note it beside the
# set. Needs: root, and the functions fetch (into $scratch), aside (migrate and try what lies in
# $scratch with $python), noted (in the bucket: id, seconds), and tidy.sh.
scratch=$root/backups/verifying
clean_up() { rm -rf "$scratch"; tidy_databases; }
clean_up
on_failure() { clean_up; }
began=$SECONDS
fetch | tee "$here/fetched"
fetched() { sed -n "s/^@report .*\"$1\": \"\([^\"]*\)\".*/\1/p" "$here/fetched"; }
# By the version that made it, where that is still here; else by the present one, after a migration.
release=$(fetched release)
if [ ! -e "$root/releases/$release/.complete" ]; then release=$(basename "$(readlink "$root/venv")"); fi
python=$root/releases/$release/bin/python
say "serve $(fetched id) on the side with MLflow ${release%-*}"
aside
noted "$(fetched id)" $((SECONDS - began))
clean_up
