#!/bin/sh
# The Secret that the chart wants, with passwords from the system's random numbers:
#   infra/helm/secret.sh postgresql+psycopg://user:password@host/loraplex [RELEASE] | kubectl create -f -
# (create: a second Secret would lock out those that have the first one's passwords.)
set -eu
database=${1:?the database, as postgresql+psycopg://user:password@host/name} release=${2:-loraplex}
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
platform=$(random) replica=$(random) key=pb_$(random)
cat <<EOF
apiVersion: v1
kind: Secret
metadata:
  name: $release
stringData:
  database-url: "$database"
  redis-url: "redis://platform:$platform@$release-valkey:6379/0"
  replica-redis-url: "redis://replica:$replica@$release-valkey:6379/0"
  secret-key: "$(head -c 32 /dev/urandom | base64 | tr +/ -_)"
  api-key: "$key"
  # As in compose.yaml, which says why.
  valkey-users: |
    user default off ~* &* +@all
    user platform on >$platform ~lpx:* &* +@all -@admin -@dangerous +info
    user replica on >$replica ~lpx:{*#*}:* ~lpx:targets &lpx:* +@all -@admin -@dangerous +info -subscribe -psubscribe -ssubscribe
EOF
echo "Your API key: $key" >&2
