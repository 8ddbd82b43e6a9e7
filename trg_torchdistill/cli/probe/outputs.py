"""Explains a step that fails because a model gives its losses something else than logits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.errors import TRGError, told
from trg_torchdistill.host import Box
from trg_torchdistill.procs import outline
from trg_torchdistill.wrappers import plain_model


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
