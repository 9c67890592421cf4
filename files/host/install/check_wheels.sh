# Keep of the wheels that were sent those of this wheelhouse alone. Needs: "$here"/SHA256SUMS.
wheels=$HOME/.cache/remote-mlflow/wheels
for each in "$wheels"/*.whl; do
  if ! grep -qF "  $(basename "$each")" "$here/SHA256SUMS"; then rm -f "$each"; fi
done
(cd "$wheels" && sha256sum --quiet -c "$here/SHA256SUMS") > /dev/null 2>&1 ||
  fail "The wheels on the host are not those that were sent. Type ./fab install again, with the same --from-wheelhouse."
