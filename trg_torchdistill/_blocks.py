"""Work in blocks of rows that fit one budget of memory, and sums whose gradient is taken a block at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

CPU_BLOCK_BYTES = 2**23  # a block stays in the caches from one operation to the next
GPU_BLOCK_BYTES = 2**26  # many small blocks would be bound by their launches


def rows_per_block(bytes_per_row: int, tensor: Tensor) -> int:
    """Returns the number of rows, at least one, whose largest intermediate fits the budget of the tensor's device."""
    budget = CPU_BLOCK_BYTES if tensor.device.type == 'cpu' else GPU_BLOCK_BYTES
    return max(1, budget // max(1, bytes_per_row))


def sum_over_blocks(
    function: Callable[..., Tensor],
    bytes_per_row: int,
    student: Tensor,
    teacher: Tensor,
    *whole: Tensor,
    closed_form: Callable[..., tuple[Tensor, Tensor]] | None = None,
) -> Tensor:
    """Returns ``function(student, teacher, *whole)``, a sum over rows, from one block of rows after the other.

    Each block's gradient to the student is taken while its intermediates are at hand, so that no more than one block of
    them is held. A second derivative holds those of all rows.

    Args:
        function: Returns a scalar for some rows of the student and the same rows of the teacher.
        bytes_per_row: Memory of its largest intermediate.
        student: Rows that may want a gradient.
        teacher: As many rows that want none.
        whole: What all blocks need of the other rows; it wants no gradient.
        closed_form: The same with the gradient, where that is cheaper than autograd's.
    """
    rows = rows_per_block(bytes_per_row, student)
    if len(student) <= rows:
        return function(student, teacher, *whole)
    if not (torch.is_grad_enabled() and student.requires_grad):
        return torch.stack([function(*block, *whole) for block in _blocks(rows, student, teacher)]).sum()
    with_gradient = closed_form or partial(_with_gradient, function)
    total: Tensor = _SumOverBlocks.apply(function, with_gradient, rows, student, teacher, *whole)[0]
    return total


def _blocks(rows: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(torch.split(tensor, rows) for tensor in tensors), strict=True)


def _with_gradient(function: Callable[..., Tensor], *block: Tensor) -> tuple[Tensor, Tensor]:
    gradient, value = torch.func.grad_and_value(function)(*block)
    return value, gradient


class _SumOverBlocks(torch.autograd.Function):
    """A sum over rows and its gradient, in one pass; only a second derivative computes the gradient again."""

    @staticmethod
    def forward(
        function: Callable[..., Tensor],
        with_gradient: Callable[..., tuple[Tensor, Tensor]],
        rows: int,
        student: Tensor,
        teacher: Tensor,
        *whole: Tensor,
    ) -> tuple[Tensor, Tensor]:
        parts = [with_gradient(*block, *whole) for block in _blocks(rows, student, teacher)]
        values, gradients = zip(*parts, strict=True)
        return torch.stack(values).sum(), torch.cat(gradients)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.function, _, _, *tensors = inputs
        ctx.save_for_backward(output[1], *tensors)
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        gradient, *tensors = ctx.saved_tensors
        if torch.is_grad_enabled():
            gradient = torch.func.grad(ctx.function)(*tensors)
        return None, None, None, scale * gradient, *(None for _ in tensors[1:])
