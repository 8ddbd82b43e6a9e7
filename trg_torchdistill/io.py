"""Reads one tensor from the host's dict of hooked features, or says why not.

The dict is {module path: {'input' or 'output': value}}.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from trg_torchdistill._checks import check_text, nearest
from trg_torchdistill.errors import TRGError
from trg_torchdistill.tokens import Tokenizer

IoDict = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class TokenOptions(Tokenizer):
    """A :class:`~trg_torchdistill.tokens.Tokenizer`, and which entry of a hooked value it cuts.

    That is what a YAML has under ``student_tokens:`` and the like. Further options are those of the tokenizer.

    Args:
        key: Entry of an output that is a mapping: ``out`` of a segmentation model's backbone {out, aux}, ``'0'`` of a
            feature pyramid, ``last_hidden_state`` of a Hugging Face model. None where one entry alone holds a tensor,
            or the output is no mapping.

    Raises:
        TRGError: If an option has a wrong type; if an option is out of range or contradicts the layout.

    YAML::

        student_tokens: {key: 'out'}
    """

    key: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.key is not None:
            check_text('key', self.key)


def read_feature(
    io_dict: IoDict, path: str, io: str, side: str, owner: str, key: str | None = None, options: str | None = None
) -> Tensor:
    """Returns the tensor that was hooked at a module of the student or the teacher.

    A tuple or list (attention modules return them) gives its first tensor; a mapping (segmentation and detection
    backbones, Hugging Face models) its entry ``key``, or the only one that holds a tensor.

    Args:
        io_dict: The host's dict of hooked features.
        path: Module path.
        io: ``input`` or ``output``.
        side: ``student`` or ``teacher``, as the YAML names it.
        owner: Key of the loss or wrapper that reads, for the message.
        key: Entry of a mapping.
        options: Keyword of the owner under which ``key`` stands; None for one that has none.

    Raises:
        TRGError: If the path was not hooked, its module did not run, or the other end of it was hooked; if the value
            holds no tensor, or not the entry, or several and no ``key`` was given.
    """
    value = hooked_value(io_dict, path, io, side, owner)
    tensor = tensor_at(value, key)
    if tensor is not None:
        return tensor
    found = tensors_in(value)
    wanted = f"`{owner}` expected the {side}'s `{path}` {io}"
    if not found:
        raise TRGError(f'{wanted} to be or to hold a tensor, got {type(value).__name__}; hook another module')
    names = [name for name in found if name is not None]
    if not names:
        raise TRGError(
            f'{wanted} to be a mapping with the entry {key!r}, got no mapping; take `key:` out of `{options}:`'
        )
    line = 'hook a module that returns one tensor'
    if key is not None:
        raise TRGError(
            f'{wanted} to have the entry {key!r}, got {names}{nearest(key, names)}; change `key:` of `{options}:`'
        )
    if options is not None:
        line = f"add `key: '{names[0]}'`, or another of them, to `{options}:` of `{owner}`"
    raise TRGError(f'{wanted} to hold one tensor, got a mapping with {names}; {line}')


def hooked_value(io_dict: IoDict, path: str, io: str, side: str, owner: str) -> Any:
    """Returns whatever was hooked at a module; arguments and errors as in :func:`read_feature`."""
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
    return found[io]


def tensors_in(value: object) -> dict[str | None, Tensor]:
    """Returns the tensors among which ``key`` chooses: the first of each entry of a mapping, by its name.

    Any other value gives its first tensor, at any depth, under None, or nothing.
    """
    if isinstance(value, Tensor):
        return {None: value}
    if isinstance(value, Mapping):
        entries = {str(name): first_tensor(entry) for name, entry in value.items()}
        return {name: tensor for name, tensor in entries.items() if tensor is not None}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return next(filter(None, map(tensors_in, value)), {})
    return {}


def tensor_at(value: object, key: str | None = None) -> Tensor | None:
    """Returns the tensor in a value, in a mapping with several that under ``key``; None if there is none, or no key."""
    found = tensors_in(value)
    return next(iter(found.values())) if key is None and len(found) == 1 else found.get(key)


def default_entry(value: object) -> tuple[str | None, Tensor | None]:
    """Returns the entry of a value to take where nobody says which, and its name if it is one of several.

    Of several maps in a mapping, the last: ``out`` of a segmentation backbone {aux, out}, the coarsest of a feature
    pyramid, whose entry ``pool`` is that once more, pooled. Of other values, the first tensor.
    """
    found = tensors_in(value)
    maps = [name for name, tensor in found.items() if tensor.ndim == 4 and name != 'pool']
    name = maps[-1] if maps else next(iter(found), None)
    return (name if len(found) > 1 else None), found.get(name)


def first_tensor(value: object) -> Tensor | None:
    """Returns the first tensor in a value, at any depth, or None."""
    return next(iter(tensors_in(value).values()), None)
