# Sourced: which build of torch this machine needs. Without an NVIDIA GPU the CPU build (about 200 MB)
# is enough, while an unpinned torch would bring gigabytes of CUDA.
torch=2.13.0
cpu_index=https://download.pytorch.org/whl/cpu
if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then
  torch_build=cuda
elif [ "$(uname)" = Darwin ]; then
  torch_build=mac
else
  torch_build=cpu
fi

with_torch() { # with_torch COMMAND…: pip's install or wheel, and torch
  if [ $torch_build = cpu ]; then
    "$@" "torch==$torch+cpu" 2>/dev/null || "$@" --extra-index-url "$cpu_index" "torch==$torch+cpu"
  else
    "$@" "torch==$torch"
  fi
}
