#!/usr/bin/env bash
# Every recorded run of results/rule110-mini (see record.sh).
set -euo pipefail

"$(dirname "${BASH_SOURCE[0]}")/record.sh" rule110-mini <<'RUNS'
n4-seed0 --sleep.passes 4
n1-flops-seed0 --sleep.passes 1 --train.steps 4594
n4-embedding-seed0 --sleep.passes 4 --sleep.recirculate embedding
n1-seed0 --sleep.passes 1
RUNS
