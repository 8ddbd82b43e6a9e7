"""The forward pass of a training step, and whose fault it is when it fails."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torchdistill.models.wrapper import AuxiliaryModelWrapper

from trg_torchdistill.errors import TRGError, explained
from trg_torchdistill.host import Box


def forward_loss(box: Box, images: Any, targets: Any, supplement: Any) -> Tensor:
    """Returns the loss of a batch.

    Raises:
        TRGError: If a model or a term fails. The bare ``KeyError`` of a loss or wrapper of the host that misses a
            feature is explained; that of a model is its own. If the loss depends on nothing that is trained.
    """
    try:
        loss = box.forward_process(images, targets, supplement)
    except Exception as error:
        module, place = _raised_in(error, box)
        what, line = f'{place} failed', ''
        if isinstance(error, KeyError) and _reads_features(module, box):
            what = f'{place} expected a key {error} and found none'
            line = (
                'when it is a module path, `input` or `output`, add the path to `forward_hook:` under `train`, where '
                f'these are hooked now: {box.hooked()}'
            )
        with explained(what, line):
            raise
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        raise TRGError(
            'expected the loss to depend on parameters that are trained, got one that depends on none: what its terms '
            'read of the student is frozen; look at the terms of `criterion:`, at `requires_grad:` and '
            '`frozen_modules:`'
        )
    if loss.numel() != 1:
        raise TRGError(
            f'expected the loss to be one number, got a tensor {list(loss.shape)}; let each term of `criterion:` give '
            "one, by `reduction: 'mean'` or in its `forward`"
        )
    return loss


def _raised_in(error: Exception, box: Box) -> tuple[nn.Module | None, str]:
    """Returns the innermost module of the box in which an error was raised, and what the user calls it."""
    names = dict(_named_modules(box))
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        module = frame.f_locals.get('self')
        if isinstance(module, nn.Module) and module in names:
            return module, f'{names[module]} (`{type(module).__name__}`)'
    return None, 'the forward pass'


def _named_modules(box: Box) -> Iterator[tuple[nn.Module, str]]:
    yield box.criterion, 'the criterion'
    for term_name, (term, _) in box.terms.items():
        for module in term.modules():
            yield module, f'the term `{term_name}`'
    for side in box.sides:
        for path, module in box.model(side).named_modules():
            yield module, f'`{path}` of the {side}' if path else f'the {side}'


def _reads_features(module: nn.Module | None, box: Box) -> bool:
    """Whether a module is a loss or a wrapper, which get what was hooked, and no part of a model."""
    is_part = any(module is part for side in box.sides for part in box.model(side).modules())
    return isinstance(module, AuxiliaryModelWrapper) or not is_part
