#!/usr/bin/env bash
# A Docker engine and a base image on a Debian machine that reaches package registries but no image
# registry (CI): infra/docker-engine-here.sh start|image|stop [FOLDER] [IMAGE…]
#   start   install and start dockerd; prints the DOCKER_HOST to export
#   image   build loraplex/gpu_worker (or those named: api, scheduler), as a user does, on a base
#           that debootstrap makes
#   stop    end the engine that `start` started, and remove what it stored
# Where images can be pulled none of this is needed: `docker build -f infra/docker/…`.
set -euo pipefail
verb=$1 folder=${2:-/tmp/loraplex-engine} images=("${@:3}")
root=$(cd "$(dirname "$0")/.." && pwd)
base=python:3.11-slim-bookworm
export DOCKER_HOST=unix://$folder/docker.sock
docker=/usr/bin/docker  # Debian's has BuildKit; another may come first on PATH
certificates=/etc/ssl/certs/ca-certificates.crt

start() {
  for tool in dockerd iptables debootstrap; do
    command -v $tool >/dev/null || missing=1
  done
  [ -z "${missing:-}" ] || apt-get install -qqy --no-install-recommends \
    docker.io iptables debootstrap >/dev/null
  mkdir -p "$folder"
  dockerd --host "$DOCKER_HOST" --data-root "$folder/data" --exec-root "$folder/exec" \
    --pidfile "$folder/dockerd.pid" >"$folder/dockerd.log" 2>&1 </dev/null &
  for _ in $(seq 60); do
    $docker info >/dev/null 2>&1 && { echo "$DOCKER_HOST"; return; }
    sleep 0.5
  done
  tail "$folder/dockerd.log" >&2
  exit 1
}

# What pip needs here (certificates, its settings, wheels that it finds on disk) goes into the base,
# so that the Dockerfiles stay what a user on the internet needs.
import_base() {
  local tree=$folder/tree
  rm -rf "$tree"
  debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv bookworm \
    "$tree" >"$folder/debootstrap.log"
  ln -s /usr/bin/python3 "$tree/usr/local/bin/python"
  cp "$certificates" "$tree$certificates"
  local change=(--change "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
  change+=(--change "ENV PIP_CERT=$certificates NODE_EXTRA_CA_CERTS=$certificates")
  if [ -n "${PIP_FIND_LINKS:-}" ] && [ -d "${PIP_FIND_LINKS:-}" ]; then
    mkdir -p "$tree$PIP_FIND_LINKS"
    cp "$PIP_FIND_LINKS"/torch-*.whl "$tree$PIP_FIND_LINKS"
    change+=(--change "ENV PIP_FIND_LINKS=$PIP_FIND_LINKS")
  fi
  tar -C "$tree" -c . | $docker import "${change[@]}" - "$base" >/dev/null
  rm -rf "$tree"
}

image() {
  $docker image inspect $base >/dev/null 2>&1 || import_base
  local index
  index=$(python3 -c 'from pip._internal.models.index import PyPI; print(PyPI.simple_url)')
  for name in "${images[@]:-gpu_worker}"; do
    DOCKER_BUILDKIT=1 $docker build --network host --build-arg "TORCH_INDEX=$index" \
      --file "$root/infra/docker/$name.Dockerfile" --tag "loraplex/$name" "$root"
  done
}

stop() {
  [ -f "$folder/dockerd.pid" ] || return 0
  local pid
  pid=$(cat "$folder/dockerd.pid")
  kill "$pid"
  while kill -0 "$pid" 2>/dev/null; do sleep 0.2; done
  umount "$folder/exec/netns/default" 2>/dev/null || true  # dockerd leaves it
  rm -rf "$folder"
}

case $verb in start | image | stop) $verb ;; *) sed -n 2,8p "$0" && exit 2 ;; esac
