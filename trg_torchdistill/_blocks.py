"""Work in blocks of rows that fit one budget of memory, and sums whose gradient is taken a block at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
    rows: Sequence[Tensor],
    whole: Sequence[Tensor] = (),
    closed_form: Callable[..., tuple[list[Tensor], Tensor]] | None = None,
) -> Tensor:
    """Returns ``function(*rows, *whole)``, a sum over rows, from one block of rows after the other.

    Each block's gradient is taken while its intermediates are at hand, so that no more than one block of them is held.
    A second derivative holds those of all rows.

    Args:
        function: Returns a scalar for the same rows of each of ``rows`` and all of ``whole``.
        bytes_per_row: Memory of its largest intermediate.
        rows: Tensors of as many rows.
        whole: What all blocks need of the other rows.
        closed_form: Gradients to those that want one, and the value, where that is cheaper than autograd.
    """
    step = rows_per_block(bytes_per_row, rows[0])
    if len(rows[0]) <= step:
        return function(*rows, *whole)
    wanted = tuple(place for place, tensor in enumerate((*rows, *whole)) if tensor.requires_grad)
    if not (torch.is_grad_enabled() and wanted):
        return torch.stack([function(*block, *whole) for block in _blocks(step, rows)]).sum()
    with_gradients = closed_form or torch.func.grad_and_value(function, argnums=wanted)
    total: Tensor = _SumOverBlocks.apply(function, with_gradients, step, wanted, len(rows), *rows, *whole)[0]
    return total


def _blocks(step: int, rows: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(torch.split(tensor, step) for tensor in rows), strict=True)


class _SumOverBlocks(torch.autograd.Function):
    """A sum over rows and its gradients, in one pass; only a second derivative computes the gradients again."""

    @staticmethod
    def forward(
        function: Callable[..., Tensor],
        with_gradients: Callable[..., tuple[Sequence[Tensor], Tensor]],
        step: int,
        wanted: tuple[int, ...],
        num_in_rows: int,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        rows, whole = tensors[:num_in_rows], tensors[num_in_rows:]
        values: list[Tensor] = []
        of_rows: list[list[Tensor]] = [[] for place in wanted if place < num_in_rows]
        of_whole = [torch.zeros_like(tensors[place]) for place in wanted if place >= num_in_rows]
        for block in _blocks(step, rows):
            gradients, value = with_gradients(*block, *whole)
            values.append(value)
            for parts, part in zip(of_rows, gradients, strict=False):
                parts.append(part)
            for total, part in zip(of_whole, gradients[len(of_rows) :], strict=True):
                total += part
        return torch.stack(values).sum(), *(torch.cat(parts) for parts in of_rows), *of_whole

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.function, _, _, ctx.wanted, _, *tensors = inputs
        ctx.num_gradients = len(output) - 1
        ctx.save_for_backward(*output[1:], *tensors)
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx: Any, scale: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        gradients, tensors = ctx.saved_tensors[: ctx.num_gradients], ctx.saved_tensors[ctx.num_gradients :]
        if torch.is_grad_enabled():
            gradients = torch.func.grad(ctx.function, argnums=ctx.wanted)(*tensors)
        by_place = dict(zip(ctx.wanted, gradients, strict=True))
        found = [by_place.get(place) for place in range(len(tensors))]
        return *[None] * 5, *(None if gradient is None else scale * gradient for gradient in found)
