"""Reads one tensor from the host's dict of hooked features, or says why not.

The dict is {module path: {'input' or 'output': value}}.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from trg_torchdistill._checks import nearest
from trg_torchdistill.errors import TRGError

IoDict = Mapping[str, Mapping[str, Any]]


def read_feature(io_dict: IoDict, path: str, io: str, side: str, owner: str) -> Tensor:
    """Returns the tensor that was hooked at a module of the student or the teacher.

    A tuple, list or mapping (attention modules and Hugging Face models return them) gives its first tensor.

    Args:
        io_dict: The host's dict of hooked features.
        path: Module path.
        io: ``input`` or ``output``.
        side: ``student`` or ``teacher``, as the YAML names it.
        owner: Key of the loss or wrapper that reads, for the message.

    Raises:
        TRGError: If the path was not hooked, its module did not run, or the other end of it was hooked; if the value
            holds no tensor.
    """
    wanted = f"`{owner}` expected the {side}'s `{path}` {io}"
    line = f"add '{path}' to `train.{side}.forward_hook.{io}`"
    hooked = sorted(name for name in io_dict if name != '.')  # the host hooks in no order
    if path not in io_dict:
        raise TRGError(f'{wanted} among the hooked modules, got {hooked}{nearest(path, hooked)}; {line}')
    found = io_dict[path]
    if io not in found:
        if found:
            raise TRGError(f'{wanted}, got its {" and ".join(found)} only; {line}')
        raise TRGError(
            f'{wanted}, but the module did not run in this step; hook a module that the forward pass calls. '
            f'A projector of `Student4TRG` does not run when the student is wrapped from outside: '
            f'leave `train.{side}.wrapper:` empty, `Student4TRG` wraps its parts itself'
        )
    tensor = first_tensor(found[io])
    if tensor is None:
        raise TRGError(f'{wanted} to be or to hold a tensor, got {type(found[io]).__name__}; hook another module')
    return tensor


def first_tensor(value: object) -> Tensor | None:
    """Returns the first tensor in a value, at any depth, or None."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            tensor = first_tensor(item)
            if tensor is not None:
                return tensor
    return None
