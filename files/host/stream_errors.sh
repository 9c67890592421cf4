# Report the last errors of the stream's unit. Needs: unit.
as_root journalctl -u "$unit-stream.service" --since -1h -o short-iso --no-pager 2> /dev/null |
  grep 'level=ERROR' | tail -n 3 | cut -c1-300 | sed 's/^/@report /' || true
