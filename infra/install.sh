#!/usr/bin/env bash
# Make a virtual environment and install Loraplex in it: infra/install.sh VENV EXTRAS
# torch comes first and pinned (torch.sh says which).
set -euo pipefail
venv=$1 extras=$2 python=${PYTHON:-python3}
. "$(dirname "$0")/torch.sh"

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "Python 3.11 or newer is needed; '$python' is $("$python" --version). Set PYTHON=…" >&2
  exit 1
}
[ -x "$venv/bin/pip" ] || { echo "Creating $venv …"; "$python" -m venv "$venv"; }
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }
quiet=-q; [ -t 1 ] && quiet=--progress-bar=on

if pip show -q torch 2>/dev/null; then
  :
else
  case $torch_build in
    cuda) echo "Installing torch $torch for CUDA (about 3 GB) …" ;;
    mac) echo "Installing torch $torch (about 80 MB) …" ;;
    cpu) echo "No NVIDIA GPU found: installing the CPU build of torch $torch (about 200 MB) …" ;;
  esac
  with_torch pip install "$quiet"
fi
echo "Installing Loraplex and its other dependencies (about 150 MB) …"
pip install "$quiet" -e ".[$extras]"
case ",$extras," in *,embedded,*)
  if command -v cc >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null; then
    echo "Compiling the CPU kernels (some seconds) …"
    "$venv/bin/python" -m kernels.cpu.build native || echo "  not compiled; torch's own are used"
  else
    echo "No C compiler: replicas on this CPU will use torch's kernels, which are slower."
  fi ;;
esac
