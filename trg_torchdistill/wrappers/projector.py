"""The learned linear projections of the student's tokens, and the file that keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torchdistill.common.constant import def_logger
from torchdistill.common.module_util import get_module

from trg_torchdistill._checks import advice, build, check_choice, check_integer, check_text, nearest
from trg_torchdistill.errors import TRGError
from trg_torchdistill.files import UnreadableError, read_saved
from trg_torchdistill.io import TokenOptions
from trg_torchdistill.tokens import flatten_grid

logger = def_logger.getChild(__name__)


class TokenProjector(nn.Module):
    """A learned linear map of each token of one hooked feature to the teacher's width.

    Args:
        path: Module path of the student's feature, ``student_model.LAYER``.
        io: ``input`` or ``output`` of that module.
        in_features: Width of the student's tokens, C*p*p with patches.
        out_features: Width of the teacher's tokens.
        tokens: :class:`~trg_torchdistill.io.TokenOptions`, the same as the loss's ``student_tokens``.

    Raises:
        TRGError: If an argument has a wrong type; if an argument is out of range.
    """

    def __init__(
        self,
        path: str,
        io: str,
        in_features: int,
        out_features: int,
        tokens: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_text('path', path)
        check_choice('io', io, ('input', 'output'))
        in_features = check_integer('in_features', in_features, 1)
        out_features = check_integer('out_features', out_features, 1)
        self.path, self.io = path, io
        self.tokenizer = build(TokenOptions, 'tokens', tokens)
        self.linear = nn.Linear(in_features, out_features)

    def forward(self, feature: Tensor) -> Tensor:
        """Returns the projected tokens [B, N, out_features] of a feature, over the student's token grid.

        Raises:
            TRGError: If the feature's tokens are not ``in_features`` wide.
        """
        with advice(
            f'a projector of `Student4TRG` read `{self.path}`, change its `tokens:` or its `path:` under `projectors:`'
        ):
            tokens = flatten_grid(self.tokenizer(feature))
        if tokens.shape[2] != self.linear.in_features:
            raise TRGError(
                f'expected tokens of width `in_features` = {self.linear.in_features} from `{self.path}`, got '
                f'{tokens.shape[2]}; change `in_features:` to {tokens.shape[2]} under `projectors:` of `Student4TRG`'
            )
        projected: Tensor = self.linear(tokens.to(self.linear.weight.dtype))
        return projected


def build_projectors(options: object) -> dict[str, TokenProjector]:
    """Builds what ``projectors:`` describes.

    Raises:
        TRGError: If it is no mapping of names that a module can have to options of a :class:`TokenProjector`.
    """
    if not isinstance(options, Mapping) or not options:
        raise TRGError(
            'expected `projectors` to be a mapping of names to {path, io, in_features, out_features}, '
            f'got {options!r}'
        )
    for name in options:
        if not isinstance(name, str) or not name.isidentifier():
            raise TRGError(f'expected the names under `projectors` to be identifiers without dots, got {name!r}')
        if hasattr(nn.ModuleDict(), name):
            raise TRGError(
                f'expected the names under `projectors` to differ from the attributes of a module, got {name!r}'
            )
    return {name: build(TokenProjector, f'projectors.{name}', kwargs) for name, kwargs in options.items()}


def check_feature(name: str, path: str, wrapper: nn.Module) -> None:
    """Raises TRGError unless the path of a projector is that of a module under the wrapper."""
    top = [child for child, _ in wrapper.named_children()]
    if path.partition('.')[0] in top and isinstance(get_module(wrapper, path), nn.Module):
        return
    known = ['.'.join(part for part in each.split('.') if part != 'module') for each, _ in wrapper.named_modules()]
    raise TRGError(
        f'expected `path` of the projector `{name}` to be a module path that begins with '
        f'{" or ".join(map(repr, top))}, got {path!r}{nearest(path, known)}'
    )


def load_projectors(path: Path, parts: Mapping[str, TokenProjector]) -> None:
    """Loads the file of the projections.

    Raises:
        TRGError: If it is no such file, or is one of other projections.
    """
    line = f'change `projector_ckpt:` of `Student4TRG` or remove the file {path}'
    try:
        states = read_saved(path)
    except UnreadableError as error:
        raise TRGError(f'expected `projector_ckpt` to be a file of projections, got {path}: {error}; {line}') from error
    expected = _shapes({name: part.state_dict() for name, part in parts.items()})
    found = _shapes(states)
    if found != expected:
        raise TRGError(f'expected `projector_ckpt` to hold {expected}, got {found}; {line}')
    for name, part in parts.items():
        part.load_state_dict(states[name])
    logger.warning('Loaded projections of the student tokens from %s', path)


def _shapes(state: object) -> object:
    """The content of a file in brief: tensors as their shapes, whatever else as its type."""
    if isinstance(state, Mapping):
        return {name: _shapes(value) for name, value in state.items()}
    return list(state.shape) if isinstance(state, Tensor) else type(state).__name__
