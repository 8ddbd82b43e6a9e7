"""The forward pass of a training step, and whose fault it is when it fails."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torchdistill.models.wrapper import AuxiliaryModelWrapper

from trg_torchdistill.errors import TRGError, explained

SIDES = {'teacher': 'teacher_model', 'student': 'student_model', 'model': 'model'}


def forward_loss(box: Any, images: Any, targets: Any, supplement: Any) -> Tensor:
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
            found = {name: getattr(box, f'{name}_io_dict', None) for name in SIDES}
            hooked = {name: list(features) for name, features in found.items() if features is not None}
            what = f'{place} expected a key {error} and found none'
            line = (
                'when it is a module path, `input` or `output`, add the path to `forward_hook:` under `train`, where '
                f'these are hooked now: {hooked}'
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


def _raised_in(error: Exception, box: Any) -> tuple[nn.Module | None, str]:
    """Returns the innermost module of the box in which an error was raised, and what the user calls it."""
    names = dict(_named_modules(box))
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        module = frame.f_locals.get('self')
        if isinstance(module, nn.Module) and module in names:
            return module, f'{names[module]} (`{type(module).__name__}`)'
    return None, 'the forward pass'


def _named_modules(box: Any) -> Iterator[tuple[nn.Module, str]]:
    yield box.criterion, 'the criterion'
    for term_name, (term, _) in getattr(box.criterion, 'term_dict', {}).items():
        for module in term.modules():
            yield module, f'the term `{term_name}`'
    for side, attribute in SIDES.items():
        model = getattr(box, attribute, None)
        for path, module in model.named_modules() if model is not None else ():
            yield module, f'`{path}` of the {side}' if path else f'the {side}'


def _reads_features(module: nn.Module | None, box: Any) -> bool:
    """Whether a module is a loss or a wrapper, which get what was hooked, and no part of a model."""
    models = [model for attribute in SIDES.values() if (model := getattr(box, attribute, None)) is not None]
    is_part = any(module is part for model in models for part in model.modules())
    return isinstance(module, AuxiliaryModelWrapper) or not is_part
