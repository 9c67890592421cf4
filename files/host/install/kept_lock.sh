# Take the lock that was kept beside a release. Needs: root, release. The name ends in its digest.
if [ "$(sha256sum < "$root/releases/$release.txt" | cut -c1-8)" != "${release##*-}" ]; then
  fail "$root/releases/$release.txt is not the lock that $release was made from. Delete it, then type ./fab install again."
fi
cp "$root/releases/$release.txt" "$here/release.txt"
