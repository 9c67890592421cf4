# Take away what no site uses any more. Needs: root, unit, uncertified (names that certbot is not to
# renew any more), unused (files).
for name in $uncertified; do
  renewal=/etc/letsencrypt/renewal/$name.conf
  if as_root test -e "$renewal"; then
    # It stays, for authorities certify one name only so often; certbot passes it over.
    as_root sed -i -e '/^autorenew/d' -e '/^\[renewalparams\]/a autorenew = False' "$renewal"
  fi
done
for file in $unused; do
  as_root test -e "$file" || continue
  as_root rm -f "$file"
  case $file in */ca-certificates/*) as_root update-ca-certificates > /dev/null 2>&1 ;; esac
done
