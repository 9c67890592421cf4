# Print the last errors of the stream's unit, one a line: time, what, why. Needs: unit. Argument:
# since when.
stream_errors() {
  as_root journalctl _SYSTEMD_UNIT="$unit-stream.service" --since "$1" -o cat --no-pager 2> /dev/null |
    sed -n 's/^time=\([^ .]*\)[^ ]* level=ERROR msg="\?\([^"]*\)"\? .*error="\?\([^"]*\).*/\1Z \2: \3/p' |
    sed 's/: .*operation error S3: \([A-Za-z]*\),.*api error \([A-Za-z]*\).*/: the bucket refuses \1 (\2)/' | tail -n 3 | cut -c1-300
}
