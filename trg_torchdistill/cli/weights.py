"""Reads stored weights without running code from their file."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from trg_torchdistill.errors import TRGError
from trg_torchdistill.files import URL_PREFIXES, UnreadableError, UnsafeError, read_saved

logger = logging.getLogger(__name__)
CONVERSION = (
    "python -c \"import torch; c = torch.load('FILE', weights_only=False); "
    "torch.save({'model': c['model'] if 'model' in c else c}, 'NEW')\""
)
MISFITS = (RuntimeError, ValueError, KeyError, TypeError, AttributeError)


def read_checkpoint(source: str | None, wanted: str) -> Mapping[str, Any] | None:
    """Returns a checkpoint of an example trainer, or bare weights; None where there is no file, as the host has it.

    Args:
        source: File or ``http(s)://`` address.
        wanted: What the file should be, for the message: "`src_ckpt` to hold weights of `resnet18`".

    Raises:
        TRGError: If it is damaged, was not written by ``torch.save``, or holds objects that could run code.
    """
    if source is None or not (source.startswith(URL_PREFIXES) or Path(source).exists()):
        if source is not None:
            logger.info('no weights are loaded: there is no file %s', source)
        return None
    try:
        checkpoint = read_saved(source)
    except UnreadableError as error:
        way_out = 'correct the path or write the file anew'
        if isinstance(error, UnsafeError):
            way_out = f'if you trust its author, keep its weights alone and name that file: {CONVERSION}'
        raise TRGError(f'expected {wanted}, got {source}: {error}. It was left as it is; {way_out}') from error
    if not isinstance(checkpoint, Mapping):
        raise TRGError(
            f'expected {wanted}, got {source}: it holds a {type(checkpoint).__name__}; save a `state_dict()`'
        )
    return checkpoint


def load_model(model: nn.Module, checkpoint: Mapping[str, Any], source: str | None, wanted: str) -> None:
    """Loads the weights of a checkpoint, or bare weights, strictly.

    Raises:
        TRGError: If they are not this model's.
    """
    try:
        model.load_state_dict(checkpoint.get('model', checkpoint))
    except MISFITS as error:
        raise TRGError(f'expected {wanted}, got {source}: {short(error)}') from error


def short(error: Exception) -> str:
    """Returns the first two lines of an error's text as one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = ' '.join(lines[:2])
    return text if len(text) <= 300 else f'{text[:300]} ...'
