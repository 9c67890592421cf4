# Put the app that MLflow's stands behind in its folder, whole or not at all. Needs: wall (the folder).
# It is root's: what the server's process can write, no start of it runs.
as_root rm -rf "$wall.part" "$wall.former"
as_root install -d -m 0755 "$(dirname "$wall")" "$wall.part"
as_root tar -x --no-same-owner -C "$wall.part" < "$here/wall.tar"
as_root chmod -R u=rwX,go=rX "$wall.part"
if as_root test -e "$wall"; then as_root mv -T "$wall" "$wall.former"; fi
as_root mv -T "$wall.part" "$wall"
as_root rm -rf "$wall.former"
