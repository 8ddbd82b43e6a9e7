#!/usr/bin/env bash
# *What lasts* on the whole of CIFAR-10, 240 epochs, on one CUDA device: bash benchmarks/accuracy/gpu.sh DATA OUT
# What was stopped goes on where it was: `timeout 600 bash benchmarks/accuracy/gpu.sh DATA OUT`, as often as it takes.
# METHODS, SEEDS, WORKERS and PYTHON of the environment change what their defaults say.
set -euo pipefail
data=$(realpath "$1")
out=$(realpath -m "$2")
cd "$(dirname "$0")"
lasting() {
    "${PYTHON:-python}" lasting.py "$@" --data "$data" --out "$out" --device cuda --workers "${WORKERS:-16}" \
        --settings resnet56_resnet20 wrn_40_2_wrn_16_2 resnet32x4_shufflenetv2 wrn_40_2_vit
}
read -ra methods <<<"${METHODS:-kd literal soft at}"
read -ra seeds <<<"${SEEDS:-1 2 3}"
lasting teacher
lasting weights --methods "${methods[@]}" --seeds 0
lasting run --methods "${methods[@]}" --shares 0.3 --seeds "${seeds[@]}"
lasting measure
