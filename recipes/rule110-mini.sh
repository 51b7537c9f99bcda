#!/usr/bin/env bash
# Every recorded run of results/rule110-mini (see record.sh). Arguments choose parts: main flops
# recirculation (all if none).
set -euo pipefail

main() {
  for seed in 0 1 2; do
    for passes in 4 1; do
      echo "n$passes-seed$seed --sleep.passes $passes --train.seed $seed"
    done
  done
}

# N = 1 on as many tokens as the counted FLOPs of N = 4 pay for.
flops() {
  echo "n1-flops-seed0 --sleep.passes 1 --train.steps 4594"
}

recirculation() {
  echo "n4-embedding-seed0 --sleep.passes 4 --sleep.recirculate embedding"
}

for part in "${@:-main flops recirculation}"; do
  for name in $part; do "$name"; done
done | "$(dirname "${BASH_SOURCE[0]}")/record.sh" rule110-mini
