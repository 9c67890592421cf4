#!/bin/bash
# Finish a restore or upgrade of {{ unit }} that was cut off, then run what is given. Written by
# `deploy`; changes made here are overwritten.
#
# Whatever starts the server or its stream runs this first: the units before they confine
# themselves, the start script where somebody runs it by hand. `data` as the first argument: this
# server keeps its databases in data/.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"
umask 077

{{ settle }}
root=$PWD
if [ "${1:-}" = data ]; then
  shift
  mkdir -p -m 0700 data
  chmod 0700 data
fi
# One that is under way ends first.
exec 8>> .hold
flock 8
if [ -d next ]; then
  settle
elif [ "${1:-}" != ./start_stream.sh ]; then
  # The stream may start while the server runs.
  keep_apart
fi
open_again
exec 8>&-
[ $# = 0 ] || exec "$@"
