#!/usr/bin/env bash
# Every table of docs/performance.md on one CUDA device, into benchmarks/results/gpu: bash benchmarks/gpu.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")"
python="${1:-python}"
mkdir -p results/gpu
for table in infonce knn local contextual memory; do
    "$python" losses.py "$table" --device cuda --json "results/gpu/$table.json"
done
for table in local global; do
    "$python" relations.py "$table" --device cuda --json "results/gpu/relations_$table.json"
done
for table in imagenet cifar; do
    "$python" step.py "$table" --device cuda --json "results/gpu/$table.json"
    "$python" step.py "$table" --device cuda --amp bf16 --json "results/gpu/${table}_bf16.json"
done
