"""What runs the student inside ``Student4TRG``: another auxiliary model wrapper of the host, or the student alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torchdistill.common.module_util import check_if_wrapped
from torchdistill.models.registry import AUXILIARY_MODEL_WRAPPER_DICT
from torchdistill.models.util import wrap_if_distributed
from torchdistill.models.wrapper import AuxiliaryModelWrapper, build_auxiliary_model_wrapper

from trg_torchdistill._checks import nearest
from trg_torchdistill.errors import TRGError, explained

TABLES = ('_modules', '_parameters', '_buffers', '_non_persistent_buffers_set')


class Alone(AuxiliaryModelWrapper):  # type: ignore[misc]
    """The student without another wrapper, at the path ``student_model``."""

    def __init__(
        self,
        student_model: nn.Module,
        device: torch.device,
        device_ids: list[int] | None,
        distributed: bool,
        find_unused_parameters: bool | None = None,
    ) -> None:
        super().__init__()
        self.student_model = wrap_if_distributed(student_model, device, device_ids, distributed, find_unused_parameters)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what the student returns."""
        return self.student_model(*args, **kwargs)


def build_inner(options: object, own_key: str, **from_host: Any) -> AuxiliaryModelWrapper:
    """Builds the wrapper described by ``inner: {key, kwargs}`` around the student, as the host builds one.

    Args:
        options: The block.
        own_key: Key of the wrapper that it is for, which cannot be inside itself.
        **from_host: What the host gives to a wrapper of the student.

    Raises:
        TRGError: If the block is no mapping with the key of another registered wrapper, or that refuses its arguments.
    """
    key = options.get('key') if isinstance(options, Mapping) else None
    known = [name for name in AUXILIARY_MODEL_WRAPPER_DICT if name != own_key]
    if not isinstance(options, Mapping) or not isinstance(key, str) or key not in known:
        found = options if key is None else key
        raise TRGError(
            'expected `inner` to be {key, kwargs} with the key of another registered auxiliary model wrapper, got '
            f'{found!r}{nearest(found, known)}; is the package that registers it named under `dependencies:`?'
        )
    with explained(f'`{key}` refused its arguments', 'they stand under `inner:`'):
        return build_auxiliary_model_wrapper({'auxiliary_model_wrapper': dict(options)}, **from_host)


def share_tables(outer: nn.Module, inner: nn.Module) -> None:
    """Makes the modules, parameters and buffers of two modules the same ones, so that they have the same paths.

    What is added to one, or put in the place of a part (a synchronised batch normalisation), is so in the other.
    """
    vars(outer).update({table: vars(inner)[table] for table in TABLES})


def unwrapped(module: nn.Module) -> Any:
    """Returns a module without the wrapper of torch that the host put around it, if it did."""
    return module.module if check_if_wrapped(module) else module
