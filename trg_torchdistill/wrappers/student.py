"""The student together with what is learned beside it, in an auxiliary model wrapper of the host."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchdistill.common.main_util import is_main_process
from torchdistill.common.module_util import check_if_wrapped
from torchdistill.models.util import wrap_if_distributed
from torchdistill.models.wrapper import AuxiliaryModelWrapper

from trg_torchdistill._checks import advice, build, check_bool, check_text, explain_keywords
from trg_torchdistill.errors import TRGError
from trg_torchdistill.files import save
from trg_torchdistill.io import IoDict, read_feature
from trg_torchdistill.wrappers.inner import Alone, build_inner, share_tables, unwrapped
from trg_torchdistill.wrappers.projector import build_projectors, check_feature, load_projectors
from trg_torchdistill.wrappers.text_mask import TextMask


class Student4TRG(AuxiliaryModelWrapper):  # type: ignore[misc]
    """The student together with the learned projections of its tokens.

    The state dict is the plain student's, so that a checkpoint of any trainer loads, strict, into the plain model; the
    projections have a file of their own, ``projector_ckpt``. A module around it, such as an average of the weights
    (``torch.optim.swa_utils.AveragedModel``), keeps the projections too, and loads what it saved. Under distributed
    training the student and each projection are wrapped one by one: leave ``wrapper:`` of the student empty.

    Beside another auxiliary model wrapper, ``inner``, all of that one's module paths stay what they are, in hooks,
    terms, frozen modules and the optimizer, and so do its files; only the state dict is the plain student's.

    Args:
        device: Target device, from the host.
        device_ids: Device indices, from the host.
        distributed: Whether training is distributed, from the host.
        projectors: For each name, the options of a
            :class:`~trg_torchdistill.wrappers.TokenProjector`; its module path is ``projectors.NAME``.
        student_model: The student, from the host.
        teacher_model: The teacher, from the host, when the wrapper was put on the wrong side.
        inner: Another auxiliary model wrapper of the student, ``{key, kwargs}`` as under ``auxiliary_model_wrapper:``;
            it runs first.
        token_mask: Options of a :class:`~trg_torchdistill.wrappers.TextMask` for texts, whose module path is
            ``token_mask``; None for none.
        projector_ckpt: File of the projections: read at the start if it exists, written after each epoch.
        find_unused_parameters: Option of DistributedDataParallel for the student; beside an ``inner`` wrapper it is
            one of that.

    Raises:
        TRGError: If a keyword is unknown, missing or of a wrong type; if a value is out of range, there is nothing to
            put beside the student, the wrapper is put on the teacher, or the file does not fit.

    YAML::

        student:
          auxiliary_model_wrapper:
            key: 'Student4TRG'
            kwargs:
              projectors:
                layer4: {path: 'student_model.layer4', io: 'output', in_features: 512, out_features: 2048}
          forward_hook: {input: [], output: ['student_model.layer4', 'projectors.layer4']}
    """

    inner: AuxiliaryModelWrapper
    plain_student: nn.Module

    @explain_keywords('Student4TRG', ('device', 'device_ids', 'distributed', 'student_model', 'teacher_model'))
    def __init__(
        self,
        device: torch.device,
        device_ids: list[int] | None,
        distributed: bool,
        projectors: Mapping[str, Any] | None = None,
        student_model: nn.Module | None = None,
        teacher_model: nn.Module | None = None,
        inner: Mapping[str, Any] | None = None,
        token_mask: Mapping[str, Any] | None = None,
        projector_ckpt: str | None = None,
        find_unused_parameters: bool | None = None,
    ) -> None:
        super().__init__()
        if student_model is None:
            raise TRGError(
                'expected `Student4TRG` to wrap the student, got the teacher; '
                'move `auxiliary_model_wrapper:` from `train.teacher` to `train.student`'
            )
        from_host: dict[str, Any] = {'device': device, 'device_ids': device_ids, 'distributed': distributed}
        with advice('change it under the `kwargs:` of `Student4TRG`'):
            if projectors is None and inner is None and token_mask is None:
                raise TRGError('expected `projectors`, `inner` or `token_mask`, got none of them')
            if projector_ckpt is not None:
                check_text('projector_ckpt', projector_ckpt)
            if find_unused_parameters is not None:
                check_bool('find_unused_parameters', find_unused_parameters)
                if inner is not None:
                    raise TRGError('expected `find_unused_parameters` under the `kwargs:` of `inner`, got it beside')
            # Not by `self.inner = `: the parts of both are registered below, once, under the paths of the inner one.
            self.__dict__['plain_student'] = unwrapped(student_model)
            self.__dict__['inner'] = (
                Alone(student_model, find_unused_parameters=find_unused_parameters, **from_host)
                if inner is None
                else build_inner(inner, type(self).__name__, student_model=student_model, **from_host)
            )
            share_tables(self, self.inner)
            for own in ('projectors', 'token_mask'):
                if hasattr(self.inner, own):
                    raise TRGError(f'expected an `inner` wrapper without `{own}`, got one that has it')
            parts = {} if projectors is None else build_projectors(projectors)
            for name, part in parts.items():
                check_feature(name, part.path, self)
            self.token_mask = None if token_mask is None else build(TextMask, 'token_mask', token_mask)
        self.projector_ckpt = None if projector_ckpt is None else Path(projector_ckpt).expanduser()
        if self.projector_ckpt is not None and self.projector_ckpt.exists():
            load_projectors(self.projector_ckpt, parts)  # before wrapping, which gives all ranks the weights of rank 0
        self.projectors = nn.ModuleDict({name: wrap_if_distributed(part, **from_host) for name, part in parts.items()})

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what the student returns."""
        if self.token_mask is not None:
            self.token_mask(kwargs.get('attention_mask'), kwargs.get('input_ids'))
        return self.inner(*args, **kwargs)

    def secondary_forward(self, io_dict: IoDict) -> None:
        """Runs each projection on its hooked feature; the host's hooks pick up the outputs."""
        self.inner.secondary_forward(io_dict)
        for projector in self.projectors.values():
            part = unwrapped(projector)
            key = part.tokenizer.key
            projector(read_feature(io_dict, part.path, part.io, 'student', 'Student4TRG', key, 'tokens'))

    def post_epoch_process(self) -> None:
        """Writes the projections to ``projector_ckpt``, if one is given."""
        self.inner.post_epoch_process()
        if self.projector_ckpt is not None and is_main_process():
            save({name: unwrapped(part).state_dict() for name, part in self.projectors.items()}, self.projector_ckpt)

    def train(self, mode: bool = True) -> Student4TRG:
        """Sets the mode of all parts; an inner wrapper has the last word on its own."""
        super().train(mode)
        self.inner.train(mode)
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the state dict of the plain student; that of a module around this one has all parts.

        A module that saves its children gives them a prefix and a dictionary to write into. It loads them without
        calling their ``load_state_dict``, so there they need all of their keys.
        """
        destination = args[0] if args else kwargs.get('destination')
        prefix = args[1] if len(args) > 1 else kwargs.get('prefix', '')
        if destination is not None and prefix:
            return super().state_dict(*args, **kwargs)
        return self.plain_student.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Loads a state dict of the plain student."""
        return self.plain_student.load_state_dict(*args, **kwargs)


def plain_model(model: nn.Module) -> nn.Module:
    """Returns the model of the YAML without what the host or ``Student4TRG`` put around it."""
    inner: nn.Module = model.plain_student if isinstance(model, Student4TRG) else unwrapped(model)
    return inner


def check_outermost(model: nn.Module) -> None:
    """Raises TRGError if a ``Student4TRG`` was wrapped from outside."""
    if check_if_wrapped(model) and isinstance(model.module, Student4TRG):
        raise TRGError(
            f'expected `Student4TRG` to be the outermost module of the student, got {type(model).__name__} around it: '
            'its projections would not run; leave `wrapper:` under `train.student` empty'
        )
