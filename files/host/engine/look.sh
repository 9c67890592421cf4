# Run the steps beside this file, which only read: no lock is taken and no audit line left.
# Arguments: <root>
here=$(dirname "$(readlink -f "$0")")
# shellcheck source=files/host/engine/words.sh
. "$here/words.sh"
root=${1/#\~/$HOME}
# shellcheck source=/dev/null
. "$here/steps.sh"
