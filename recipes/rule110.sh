#!/usr/bin/env bash
# Every recorded run of results/rule110 (see record.sh). On a CPU the recipe takes two cores hours.
# Runs end early once they answer 99.5% of the validation examples, as the paper's do.
set -euo pipefail

"$(dirname "${BASH_SOURCE[0]}")/record.sh" rule110 <<'RUNS'
t12-n1-seed0 --task.steps 12
t8-n1-seed0 --task.steps 8 --train.stop-at 0.995
RUNS
