"""The forward pass of a training step, and whose fault it is when it fails."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torchdistill.models.wrapper import AuxiliaryModelWrapper

from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.errors import TRGError, explained, told
from trg_torchdistill.host import Box
from trg_torchdistill.procs import outline
from trg_torchdistill.wrappers import plain_model


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
        is_part = any(module is part for side in box.sides for part in box.model(side).modules())
        # Losses and wrappers get what was hooked, parts of a model do not.
        if isinstance(error, KeyError) and (isinstance(module, AuxiliaryModelWrapper) or not is_part):
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
    names: dict[nn.Module, str] = {box.criterion: 'the criterion'}
    for term_name, (term, _) in box.terms.items():
        names |= dict.fromkeys(term.modules(), f'the term `{term_name}`')
    for side in box.sides:
        for path, part in box.model(side).named_modules():
            names[part] = f'`{path}` of the {side}' if path else f'the {side}'
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        module = frame.f_locals.get('self')
        if isinstance(module, nn.Module) and module in names:
            return module, f'{names[module]} (`{type(module).__name__}`)'
    return None, 'the forward pass'


@contextlib.contextmanager
def outputs_explained(config: Config, box: Box, batch: tuple[Any, Any, Any]) -> Iterator[None]:
    """Says which model returned no logits when a step fails inside; a loss of the user that takes more is left alone.

    Args:
        config: The YAML.
        box: Distillation or training box.
        batch: Images, labels and supplementary values of the step.

    Raises:
        TRGError: If the step failed and a forward process returned no tensor.
    """
    try:
        yield
    except Exception as error:
        foreign = error.__cause__ if isinstance(error, TRGError) else error
        if foreign is not None:
            with torch.no_grad():
                _check_outputs(config, box, batch, told(foreign))
        raise


def _check_outputs(config: Config, box: Box, batch: tuple[Any, Any, Any], reason: str) -> None:
    """Calls the models again and refuses the first that returns no tensor; says nothing of one that fails itself."""
    stage = config.stage_paths()[box.stage - 1]
    for side in config.side_names:
        model = plain_model(box.model(side))
        try:
            output = box.forward_proc(side)(model, *batch)
        except Exception:
            return
        if not isinstance(output, Tensor):
            raise TRGError(
                f'expected `{type(model).__name__}` to return logits, got {outline(output)}, of which the losses make '
                f"{reason}; change {config.where(*stage, side, 'forward_proc')} to 'forward_logits_only', or to a "
                'registered process of your own that takes the logits out'
            )
