#!/usr/bin/env bash
# Every recorded run of results/rule110 (see record.sh).
set -euo pipefail

"$(dirname "${BASH_SOURCE[0]}")/record.sh" rule110 <<'RUNS'
t12-n1-seed0 --task.steps 12
t8-n1-seed0 --task.steps 8
RUNS
