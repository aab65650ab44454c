#!/bin/sh
# Make .env of .env.example, with secrets from the system's random numbers.
set -eu
cd "$(dirname "$0")/../.."
[ ! -e .env ] || { echo ".env is there already; compose uses it." >&2; exit 1; }
random() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }
umask 077
while IFS= read -r line; do
  case $line in
    *'<secret>') echo "${line%<secret>}$(random 24)" ;;
    *'<key>') echo "${line%<key>}$(head -c 32 /dev/urandom | base64 | tr +/ -_)" ;;
    *) echo "$line" ;;
  esac
done <.env.example >.env
echo "Made .env. Your API key: $(sed -n 's/^LORAPLEX_API_KEY=//p' .env)"
