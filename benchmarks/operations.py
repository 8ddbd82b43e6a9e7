"""Counts the operations that each loss dispatches in a forward and backward: what a GPU would have to launch.

python benchmarks/operations.py [--sizes 1024x64] [--json FILE]

On a CPU, for M tokens with D features; the contextual term has M / 16 images of 16 tokens, and `TRGLoss` draws 8 of 16.
Views are not counted. The counts are those of a release of torch, the same on any machine.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from trg_torchdistill import TRGLoss, contextual_loss, global_relationship_loss, local_preserving_loss

CELLS = 16
PATHS = {'student_module_path': 'map', 'student_module_io': 'output'}
PATHS |= {'teacher_module_path': 'map', 'teacher_module_io': 'output'}


class OperationCount(TorchDispatchMode):
    """Counts the operations inside a ``with`` that are no views."""

    count = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Counts one operation and runs it."""
        self.count += not operation.is_view
        return operation(*args, **(kwargs or {}))


def count_operations(loss: Callable[[Tensor, Tensor], Tensor], shape: tuple[int, ...]) -> int:
    """Returns the number of operations of a forward and backward of a loss on random tokens of this shape."""
    student, teacher = torch.randn(shape, requires_grad=True), torch.randn(shape)
    with OperationCount() as operations:
        loss(student, teacher).backward()
    return operations.count


def trg(student: Tensor, teacher: Tensor, **options: Any) -> Tensor:
    """`TRGLoss` on two hooked feature maps."""
    value: Tensor = TRGLoss(**PATHS, **options)({'map': {'output': student}}, {'map': {'output': teacher}})
    return value


def main() -> None:
    """Prints and writes the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--sizes', default='1024x64', help='tokens and features')
    parser.add_argument('--json', type=Path, help='file for the counts')
    options = parser.parse_args()
    tokens, width = (int(part) for part in options.sizes.split('x'))
    graph, maps = (tokens, width), (tokens // 8, width, 4, 4)
    cases = {
        'TRGLoss': (trg, maps),
        "TRGLoss, edges: 'teacher'": (partial(trg, edges='teacher'), maps),
        'local_preserving_loss': (local_preserving_loss, graph),
        "local_preserving_loss, edges: 'teacher'": (partial(local_preserving_loss, edges='teacher'), graph),
        "local_preserving_loss, edges: 'union'": (partial(local_preserving_loss, edges='union'), graph),
        'local_preserving_loss, num_neighbors: null': (partial(local_preserving_loss, num_neighbors=None), graph),
        'global_relationship_loss': (global_relationship_loss, graph),
        "global_relationship_loss, targets: 'teacher'": (partial(global_relationship_loss, targets='teacher'), graph),
        'contextual_loss': (contextual_loss, (tokens // CELLS, CELLS, width)),
    }
    counts = {name: count_operations(*case) for name, case in cases.items()}
    print('| loss | operations |\n|---|---|')
    for name, count in counts.items():
        print(f'| {name} | {count} |')
    if options.json:
        options.json.write_text(json.dumps({'torch': torch.__version__, 'operations': counts}) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
