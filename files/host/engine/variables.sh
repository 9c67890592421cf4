# Export the variables that a file such as server.env names, each NAME=word or NAME='quoted'. It is
# data: of another line nothing is run, and a warning says so.
read_variables() { # the file
  local line word="[^][:space:]\\\"'\$\`;|<>()[]*"
  local shape="^[[:space:]]*(export[[:space:]]+)?([A-Za-z_][A-Za-z0-9_]*)=('([^']*)'|\"([^\"\$\`\\\\]*)\"|($word))[[:space:]]*\$"
  while IFS= read -r line || [ -n "$line" ]; do
    if [[ $line =~ $shape ]]; then
      export "${BASH_REMATCH[2]}=${BASH_REMATCH[4]}${BASH_REMATCH[5]}${BASH_REMATCH[6]}"
    elif [[ ! $line =~ ^[[:space:]]*(#.*)?$ ]]; then
      warn "${1##*/}: a line that is no NAME=word is left out: $(cut -c1-40 <<< "${line%%=*}" | tr -cd '[:print:]')"
    fi
  done < "$1"
}
