# Say what the stream's unit runs into. Needs: root, unit.
shortly() {
  sed 's/.*operation error S3: \([A-Za-z]*\),.*api error \([A-Za-z]*\).*/the bucket refuses \1 (\2)/' | cut -c1-300
}
# The last errors of the present stream and quarter of an hour, one a line: time, what, why.
stream_errors() {
  local since=$(($(date +%s) - 900)) began
  began=$(stat -c %Y "$root/.stream" 2> /dev/null || echo 0)
  as_root journalctl _SYSTEMD_UNIT="$unit-stream.service" --since "@$((began > since ? began : since))" -o cat --no-pager 2> /dev/null |
    sed -n 's/^time=\([^ .]*\)[^ ]* level=ERROR msg="\?\([^"]*\)"\? .*error="\?\([^"]*\).*/\1Z\t\2\t\3/p' |
    tail -n 3 | while IFS=$'\t' read -r time what why; do echo "$time $what: $(shortly <<< "$why")"; done
}
