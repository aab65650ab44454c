#!/usr/bin/env bash
# Write the images' lock files anew (`make lock`): every package of an image by version and hash, the
# same version in all images. UPGRADE=1 takes the newest that pyproject.toml allows.
# torch is left out: its builds for CPUs and CUDA come from indexes of their own (TORCH_INDEX of
# gpu_worker.Dockerfile) and pin what they need themselves, but for sympy, networkx and setuptools.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
echo 'torch; python_version < "3"' >"$work/override"
printf '%s\n' sympy networkx setuptools >"$work/torch.in"

compile() { # compile FILE [INPUT] OPTION…
  uv pip compile -q pyproject.toml --override "$work/override" --python-version 3.11 --universal \
    --generate-hashes --no-header --no-annotate --output-file "$@"
}
# What is pinned stays, unless it no longer fits.
[ -n "${UPGRADE:-}" ] || cat infra/docker/*.lock >"$work/all"
compile "$work/all" "$work/torch.in" --all-extras
compile infra/docker/api.lock --constraint "$work/all" --extra api --extra postgres
compile infra/docker/scheduler.lock --constraint "$work/all" --extra scheduler --extra postgres
compile infra/docker/gpu_worker.lock "$work/torch.in" --constraint "$work/all" \
  --extra worker --extra scheduler --extra postgres
