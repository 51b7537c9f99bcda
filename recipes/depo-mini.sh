#!/usr/bin/env bash
# Every recorded run of results/depo-mini (see record.sh). Arguments choose parts: main flops
# recirculation row (all if none).
set -euo pipefail

main() {
  for seed in 0 1 2; do
    for passes in 4 1 3 2; do
      echo "n$passes-seed$seed --sleep.passes $passes --train.seed $seed"
    done
  done
}

# N = 1 at the counted FLOPs of N = 4, which its own steps and learning rate may spend.
flops() {
  local budget="--sleep.passes 1 --train.steps 2440"
  for rate in 2.5e-3 5e-3 1e-2 2e-2; do
    echo "n1-flops-lr$rate-seed0 $budget --train.muon-lr $rate"
  done
  for seed in 1 2; do
    echo "n1-flops-lr5e-3-seed$seed $budget --train.muon-lr 5e-3 --train.seed $seed"
  done
}

recirculation() {
  for kind in normed normed+embedding embedding; do
    echo "n4-$kind-seed0 --sleep.passes 4 --sleep.recirculate $kind"
  done
}

row() {
  for passes in 4 1; do
    echo "n$passes-row-seed0 --sleep.passes $passes --task.layout row"
  done
}

for part in "${@:-main flops recirculation row}"; do
  for name in $part; do "$name"; done
done | "$(dirname "${BASH_SOURCE[0]}")/record.sh" depo-mini
