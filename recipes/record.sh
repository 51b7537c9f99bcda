#!/usr/bin/env bash
# Records runs of a recipe under results/, JOBS at a time: one run a line on stdin, its name and its
# options. Finished runs are skipped, broken-off ones continue.
#   echo "n4-seed0 --sleep.passes 4" | recipes/record.sh depo-mini
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

slowwave=${SLOWWAVE:-.venv/bin/slowwave}

xargs -P "${JOBS:-2}" -I {} bash -c "
  set -- {}; name=\$1; shift
  $slowwave train recipes/$1.toml \"\$@\" --out results/$1/\$name > /dev/null"
