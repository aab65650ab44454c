#!/usr/bin/env bash
# One deployment from start to end on this machine, in a home of its own: up, adapters side by side,
# a replica that dies under load, down. `make gpu-check` runs it; LORAPLEX_DEVICE=cuda wants a GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PWD/.venv/bin:$PATH
LORAPLEX_HOME=$(mktemp -d)
export LORAPLEX_HOME LORAPLEX_PORT=${LORAPLEX_PORT:-8150}
trap 'loraplex down >/dev/null 2>&1; rm -rf "$LORAPLEX_HOME"' EXIT
[ ! -d .loraplex/models ] || ln -s "$PWD/.loraplex/models" "$LORAPLEX_HOME/models"

loraplex up --detach
loraplex chat smollm2 "What is the capital of France?" --max-tokens 40 | tee "$LORAPLEX_HOME/answer"
grep -q Paris "$LORAPLEX_HOME/answer"
loraplex chat smollm2 "Where do you live?" --adapter pirate/1 --max-tokens 40
loraplex ps
loraplex bench smollm2 --mix base --mix pirate/1 --mix json/1

echo "A replica is killed under load:"
loraplex bench smollm2 --mix pirate/1 --requests 16 --json >"$LORAPLEX_HOME/bench.json" &
load=$!
until curl -sf -H "authorization: Bearer $(cat "$LORAPLEX_HOME/api-key")" \
  "http://127.0.0.1:$LORAPLEX_PORT/api/v1/deployments/smollm2" |
  grep -q '"running":[1-9]'; do sleep 0.2; done
record=$(find "$LORAPLEX_HOME/replicas" -name 'rep-*.json' | head -1)
kill -KILL "$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["pid"])' "$record")"
wait $load
python3 -c 'import json, sys
found = json.load(open(sys.argv[1]))
print(found)
sys.exit(bool(found.get("failed")))' "$LORAPLEX_HOME/bench.json"
echo "All were answered."
