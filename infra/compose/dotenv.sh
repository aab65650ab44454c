#!/bin/sh
# Make .env (or the file that is named) of .env.example, with secrets from the system's random numbers.
set -eu
example=$(dirname "$0")/../../.env.example
file=${1:-$(dirname "$0")/../../.env}
[ ! -e "$file" ] || { echo "$file is there already; compose uses it." >&2; exit 1; }
random() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }
umask 077
while IFS= read -r line; do
  case $line in
    *'<secret>') echo "${line%<secret>}$(random 24)" ;;
    *'<key>') echo "${line%<key>}$(head -c 32 /dev/urandom | base64 | tr +/ -_)" ;;
    *) echo "$line" ;;
  esac
done <"$example" >"$file"
echo "Your API key: $(sed -n 's/^LORAPLEX_API_KEY=//p' "$file")"
