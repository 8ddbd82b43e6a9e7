"""What is learned beside the student: linear projections of its tokens, in an auxiliary model wrapper of the host."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchdistill.common.constant import def_logger
from torchdistill.common.main_util import is_main_process
from torchdistill.common.module_util import check_if_wrapped, get_module
from torchdistill.models.util import wrap_if_distributed
from torchdistill.models.wrapper import AuxiliaryModelWrapper

from trg_torchdistill._checks import (
    advice,
    build,
    check_bool,
    check_choice,
    check_integer,
    check_text,
    explain_keywords,
    nearest,
)
from trg_torchdistill.errors import TRGError
from trg_torchdistill.files import UnreadableError, read_saved, save
from trg_torchdistill.io import IoDict, TokenOptions, read_feature
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


class Student4TRG(AuxiliaryModelWrapper):  # type: ignore[misc]
    """The student together with the learned projections of its tokens.

    The state dict is the plain student's, so that a checkpoint of any trainer loads, strict, into the plain model; the
    projections have a file of their own, ``projector_ckpt``. A module around it, such as an average of the weights
    (``torch.optim.swa_utils.AveragedModel``), keeps the projections too, and loads what it saved. Under distributed
    training the student and each projection are wrapped one by one: leave ``wrapper:`` of the student empty.

    Args:
        projectors: For each name, the options of a :class:`TokenProjector`; its module path is ``projectors.NAME``.
        device: Target device, from the host.
        device_ids: Device indices, from the host.
        distributed: Whether training is distributed, from the host.
        student_model: The student, from the host.
        teacher_model: The teacher, from the host, when the wrapper was put on the wrong side.
        projector_ckpt: File of the projections: read at the start if it exists, written after each epoch.
        find_unused_parameters: Option of DistributedDataParallel for the student.

    Raises:
        TRGError: If a keyword is unknown, missing or of a wrong type; if a value is out of range, the wrapper is put on
            the teacher, or the file does not fit.

    YAML::

        student:
          auxiliary_model_wrapper:
            key: 'Student4TRG'
            kwargs:
              projectors:
                layer4: {path: 'student_model.layer4', io: 'output', in_features: 512, out_features: 2048}
          forward_hook: {input: [], output: ['student_model.layer4', 'projectors.layer4']}
    """

    @explain_keywords('Student4TRG', ('device', 'device_ids', 'distributed', 'student_model', 'teacher_model'))
    def __init__(
        self,
        projectors: Mapping[str, Any],
        device: torch.device,
        device_ids: list[int] | None,
        distributed: bool,
        student_model: nn.Module | None = None,
        teacher_model: nn.Module | None = None,
        projector_ckpt: str | None = None,
        find_unused_parameters: bool | None = None,
    ) -> None:
        super().__init__()
        if student_model is None:
            raise TRGError(
                'expected `Student4TRG` to wrap the student, got the teacher; '
                'move `auxiliary_model_wrapper:` from `train.teacher` to `train.student`'
            )
        with advice('change it under the `kwargs:` of `Student4TRG`'):
            if not isinstance(projectors, Mapping) or not projectors:
                raise TRGError(
                    'expected `projectors` to be a mapping of names to {path, io, in_features, out_features}, '
                    f'got {projectors!r}'
                )
            if projector_ckpt is not None:
                check_text('projector_ckpt', projector_ckpt)
            if find_unused_parameters is not None:
                check_bool('find_unused_parameters', find_unused_parameters)
            parts = {name: build(TokenProjector, f'projectors.{name}', kwargs) for name, kwargs in projectors.items()}
            for name, part in parts.items():
                _check_path(name, part.path, student_model)
        self.projector_ckpt = None if projector_ckpt is None else Path(projector_ckpt).expanduser()
        if self.projector_ckpt is not None and self.projector_ckpt.exists():
            _load_projectors(self.projector_ckpt, parts)  # before wrapping, which gives all ranks the weights of rank 0
        self.student_model = wrap_if_distributed(student_model, device, device_ids, distributed, find_unused_parameters)
        self.projectors = nn.ModuleDict(
            {name: wrap_if_distributed(part, device, device_ids, distributed) for name, part in parts.items()}
        )

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what the student returns."""
        return self.student_model(*args, **kwargs)

    def secondary_forward(self, io_dict: IoDict) -> None:
        """Runs each projection on its hooked feature; the host's hooks pick up the outputs."""
        for projector in self.projectors.values():
            part = unwrapped(projector)
            key = part.tokenizer.key
            projector(read_feature(io_dict, part.path, part.io, 'student', 'Student4TRG', key, 'tokens'))

    def post_epoch_process(self) -> None:
        """Writes the projections to ``projector_ckpt``, if one is given."""
        if self.projector_ckpt is not None and is_main_process():
            save({name: unwrapped(part).state_dict() for name, part in self.projectors.items()}, self.projector_ckpt)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the state dict of the plain student; that of a module around this one has the projections as well.

        A module that saves its children gives them a prefix and a dictionary to write into. It loads them without
        calling their ``load_state_dict``, so there they need all of their keys.
        """
        destination = args[0] if args else kwargs.get('destination')
        prefix = args[1] if len(args) > 1 else kwargs.get('prefix', '')
        if destination is not None and prefix:
            return super().state_dict(*args, **kwargs)
        return unwrapped(self.student_model).state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Loads a state dict of the plain student."""
        return unwrapped(self.student_model).load_state_dict(*args, **kwargs)


def unwrapped(module: nn.Module) -> Any:
    """Returns a module without the wrapper of torch that the host put around it, if it did."""
    return module.module if check_if_wrapped(module) else module


def plain_model(model: nn.Module) -> nn.Module:
    """Returns the model of the YAML without what the host or ``Student4TRG`` put around it."""
    inner: nn.Module = unwrapped(model.student_model if isinstance(model, Student4TRG) else model)
    return inner


def check_outermost(model: nn.Module) -> None:
    """Raises TRGError if a ``Student4TRG`` was wrapped from outside."""
    if check_if_wrapped(model) and isinstance(model.module, Student4TRG):
        raise TRGError(
            f'expected `Student4TRG` to be the outermost module of the student, got {type(model).__name__} around it: '
            'its projections would not run; leave `wrapper:` under `train.student` empty'
        )


def _check_path(name: str, path: str, student: nn.Module) -> None:
    if not isinstance(name, str) or not name.isidentifier():
        raise TRGError(f'expected the names under `projectors` to be identifiers without dots, got {name!r}')
    if hasattr(nn.ModuleDict(), name):
        raise TRGError(f'expected the names under `projectors` to differ from the attributes of a module, got {name!r}')
    first, _, rest = path.partition('.')
    if first != 'student_model' or (rest and get_module(student, rest) is None):
        known = [f'student_model.{child}' for child, _ in unwrapped(student).named_modules() if child]
        raise TRGError(
            f"expected `path` of the projector `{name}` to be 'student_model.' and a module path of the student, "
            f'got {path!r}{nearest(path, known)}'
        )


def _load_projectors(path: Path, parts: Mapping[str, TokenProjector]) -> None:
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
