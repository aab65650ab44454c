#!/usr/bin/env bash
# The cloud on one machine without a cloud: infra/accept.sh [FOLDER]
# Images, the compose stack, a chat through the proxy, a replica's container killed in mid-stream, scale
# to zero; then Terraform and the EC2 driver against moto. For a Debian machine without an image
# registry, as root; `make install-dev` comes first. Ends with what it measured.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -x .venv/bin/pytest ] || { echo "make install-dev comes first."; exit 2; }
folder=$(realpath -m "${1:-/tmp/loraplex-engine}")
export PATH=/usr/bin:$PWD/.venv/bin:$PATH DOCKER_HOST=unix://$folder/docker.sock
export COMPOSE_PROJECT_NAME=loraplex-accept LORAPLEX_PORT=${LORAPLEX_PORT:-8140}
work=$(mktemp -d)
measured=()
say() { printf '\n== %s\n' "$*"; }
took() { measured+=("$1: $(($(date +%s) - $2)) s"); }
compose() {
  docker compose --env-file "$work/.env" --file compose.yaml --file "$work/same-text.yaml" "$@"
}
finish() {
  code=$?
  [ $code = 0 ] || compose logs --no-color --tail 40 || true
  compose stop >/dev/null 2>&1 || true
  compose down --volumes --remove-orphans >/dev/null 2>&1 || true
  [ -n "${was_running:-}" ] || infra/docker-engine-here.sh stop "$folder"
  rm -rf "$work"
  exit $code
}

say "A Docker engine and images"
trap finish EXIT
docker info >/dev/null 2>&1 && was_running=1 || infra/docker-engine-here.sh start "$folder"
began=$(date +%s)
infra/docker-engine-here.sh image "$folder" gpu_worker api scheduler >"$work/build.log" 2>&1 ||
  { tail -50 "$work/build.log"; exit 1; }
infra/docker-engine-here.sh services "$folder"
took "images" "$began"
base=$(docker image inspect --format '{{.Size}}' python:3.11-slim-bookworm)
for name in api scheduler gpu_worker; do
  size=$(docker image inspect --format '{{.Size}}' "loraplex/$name")
  packages=$(docker run --rm --entrypoint cat "loraplex/$name" /opt/loraplex/sbom.json |
    python3 -c 'import json, sys; print(len(json.load(sys.stdin)["components"]))')
  measured+=("image $name: $(((size - base) / 1000000)) MB on its base, $packages packages in its SBOM")
done

say "docker compose up"
infra/compose/dotenv.sh "$work/.env"
echo "DOCKER_SOCKET=$folder/docker.sock" >>"$work/.env"
# A text is to be the same whoever goes on with it: without this it is as good, but rounding differs.
same='{environment: {LORAPLEX_DETERMINISTIC: "true", LORAPLEX_DTYPE: float32}}'
echo "services: {scaler: $same, tasks: $same}" >"$work/same-text.yaml"
began=$(date +%s)
compose up --detach --wait --quiet-pull
took "healthy" "$began"
compose ps
LORAPLEX_API_KEY=$(sed -n 's/^LORAPLEX_API_KEY=//p' "$work/.env")
export LORAPLEX_API_KEY LORAPLEX_URL=http://127.0.0.1:$LORAPLEX_PORT LORAPLEX_HOME=$work/cli

say "A deployment, and a chat through the proxy"
began=$(date +%s)
loraplex deploy chat --base-model HuggingFaceTB/SmolLM2-135M-Instruct --cooldown-time 10
until loraplex deployments --json | grep -q '"standby"'; do sleep 1; done
took "base model fetched" "$began"
began=$(date +%s)
loraplex chat chat "What is the capital of France?" --max-tokens 40 --temperature 0 | tee "$work/answer"
took "first answer, from zero replicas" "$began"
grep -q Paris "$work/answer"

ask() { # the streamed text of a request that is the same each time
  curl -sSN --fail-with-body --max-time 200 "$LORAPLEX_URL/v1/completions" \
    -H "authorization: Bearer $LORAPLEX_API_KEY" -H 'content-type: application/json' \
    -d '{"model": "chat", "prompt": "Once upon a time", "max_tokens": 300, "temperature": 0,
         "stream": true, "ignore_eos": true}' >"$1"
}
text() {
  python3 -c 'import json, sys
chunks = [json.loads(l[6:]) for l in open(sys.argv[1]) if l.startswith("data: {")]
print("".join(c["choices"][0]["text"] for c in chunks if c["choices"]))' "$1"
}

say "The container of the replica is killed in mid-stream"
ask "$work/killed.sse" &
asking=$!
until [ "$(grep -c '^data: {' "$work/killed.sse" 2>/dev/null)" -gt 20 ]; do sleep 0.1; done
replica=$(docker ps --filter "label=loraplex.home=$COMPOSE_PROJECT_NAME" --format '{{.Names}}')
before=$(text "$work/killed.sse" | wc -c)
docker kill "$replica" >/dev/null
began=$(date +%s)
wait $asking
took "killed after $before characters; the sentence ended after" "$began"
ask "$work/whole.sse"
[ "$(grep -c 'DONE' "$work/killed.sse")" = 1 ]
cmp <(text "$work/killed.sse") <(text "$work/whole.sse")
measured+=("its text: $(text "$work/killed.sse" | wc -c) characters, as undisturbed")
text "$work/killed.sse" | cut -c1-300 | head -5

say "To zero"
began=$(date +%s)
until [ -z "$(docker ps --quiet --filter "label=loraplex.home=$COMPOSE_PROJECT_NAME")" ]; do sleep 1; done
took "no replica left (cooldown 10 s)" "$began"
loraplex deployments

say "SIGTERM"
began=$(date +%s)
compose stop
took "stopped" "$began"
compose ps --all --format '{{.Service}} {{.ExitCode}}' | tee "$work/codes"
! grep -qv ' 0$' "$work/codes" || { echo "Not all ended by themselves."; exit 1; }
compose down --volumes --remove-orphans

say "Terraform and the EC2 driver, against moto"
pytest -q -p no:logging tests/integration/test_terraform.py tests/integration/test_ec2.py
pytest -q -p no:logging tests/integration/test_drivers.py -k 'ec2 or docker'

say "Measured"
printf '%s\n' "${measured[@]}"
