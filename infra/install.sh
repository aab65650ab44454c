#!/usr/bin/env bash
# Make a virtual environment and install Loraplex in it: infra/install.sh VENV EXTRAS
# torch comes first and pinned: without an NVIDIA GPU the CPU build (about 200 MB) is enough, while
# an unpinned torch would bring gigabytes of CUDA.
set -euo pipefail
venv=$1 extras=$2 python=${PYTHON:-python3}
torch=2.13.0
cpu_index=https://download.pytorch.org/whl/cpu

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "Python 3.11 or newer is needed; '$python' is $("$python" --version). Set PYTHON=…" >&2
  exit 1
}
[ -x "$venv/bin/pip" ] || { echo "Creating $venv …"; "$python" -m venv "$venv"; }
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }
quiet=-q; [ -t 1 ] && quiet=--progress-bar=on

if pip show -q torch 2>/dev/null; then
  :
elif command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then
  echo "Installing torch $torch for CUDA (about 3 GB) …"
  pip install "$quiet" "torch==$torch"
elif [ "$(uname)" = Darwin ]; then
  echo "Installing torch $torch (about 80 MB) …"
  pip install "$quiet" "torch==$torch"
else
  echo "No NVIDIA GPU found: installing the CPU build of torch $torch (about 200 MB) …"
  pip install "$quiet" "torch==$torch+cpu" 2>/dev/null ||
    pip install "$quiet" --extra-index-url "$cpu_index" "torch==$torch+cpu"
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
