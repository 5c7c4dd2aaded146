#!/usr/bin/env bash
# The whole recipe in one command, on a machine with a GPU that may have no package registry.
#
#   usage: OUT=folder tools/model/gpu.sh [--minutes 4] [other options of `python -m tools.model all`]
#
# Run from the repository's root. Python needs torch and transformers; wheels of anything else that
# is missing there (diffusers) are taken from .cache/model/wheels. Leaves in $OUT: grid.webp,
# log.txt, score.json where the score's encoder is installed, and the model as model.tar.00, .01 …
# Join them with: cat model.tar.* | tar x
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

cache=${CACHE:-.cache/model}
out=${OUT:?set OUT to a folder for the results}
state=${STATE:-$(mktemp -d)/state}
site=$(mktemp -d)
mkdir -p "$out"
for wheel in "$cache"/wheels/*.whl; do
  [ -e "$wheel" ] && python3 -m zipfile -e "$wheel" "$site"
done
export PYTHONPATH="$site:runtime:.${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=true TQDM_DISABLE=1

[ $# -gt 0 ] || set -- --minutes 4
status=0
python3 -m tools.model all "$cache/data" "$state" "$out" "$@" 2>&1 | tee "$out/log.txt" || status=$?
# A model that was finished is kept, whatever failed after it.
if [ -d "$state/model" ]; then
  tar c -C "$state" model | split -b 15M -d - "$out/model.tar."
fi
ls -l "$out"
exit "$status"
