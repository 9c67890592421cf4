# Take wheels from a tar on standard input; SHA256SUMS in it says what each has to be.
set -euo pipefail
umask 077
mkdir -p ~/.cache/remote-mlflow/wheels
cd ~/.cache/remote-mlflow
part=$(mktemp -d "$PWD/part.XXXXXX")
trap 'rm -rf "$part"' EXIT
tar -xf - -C "$part"
cd "$part"
sha256sum --quiet -c SHA256SUMS >&2 || { echo "a wheel is not what was sent. Run the same command again" >&2; exit 1; }
rm SHA256SUMS
mv -f -- *.whl ../wheels/
