# The words that steps on a host are written with; sourced by change.sh and look.sh, with `here` set.
set -euo pipefail
umask 077
export LC_ALL=C DEBIAN_FRONTEND=noninteractive PATH="$PATH:/usr/sbin:/sbin"
cd "$HOME"

# shellcheck source=files/host/engine/variables.sh
. "$here/variables.sh"
say() { printf '@say %s\n' "$*"; }
# What is under way within a step: the newest is seen, where somebody looks.
now() { printf '@now %s\n' "$*"; }
warn() { printf '@warn %s\n' "$*"; }
fail() { printf '@fail %s\n' "$*"; exit 1; }
report() { printf '@report %s\t%s\n' "$1" "$2"; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
# Put a staged file in place whole: mode, then a rename on the same file system.
place() { install -m "$3" "$1" "$2.part" && mv -f "$2.part" "$2"; }
place_as_root() { as_root install -D -m "$3" "$1" "$2.part" && as_root mv -f "$2.part" "$2"; }
