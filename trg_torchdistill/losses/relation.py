"""What the registered losses share: a pair of hooked features, their token grids, and the means of an epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trg_torchdistill._checks import advice, build, check_bool, check_choice, check_text, explain_keywords
from trg_torchdistill.errors import TRGError, told
from trg_torchdistill.functional import LocalTerm
from trg_torchdistill.io import IoDict, TokenOptions, read_feature
from trg_torchdistill.losses.facts import Facts
from trg_torchdistill.losses.maps import ImageMaps
from trg_torchdistill.losses.masks import TokenMask
from trg_torchdistill.losses.paired import PairedTokens
from trg_torchdistill.means import Means
from trg_torchdistill.schedules import WeightSchedule
from trg_torchdistill.tokens import flatten_grid, pool_to_common_grid

Terms = dict[str, tuple[float, Tensor]]


class RelationLoss(nn.Module, ABC):
    """A loss on the tokens of one student feature and one teacher feature; a subclass defines :meth:`compute`.

    What the commands say and draw of a loss, they ask the loss: :meth:`terms`, :meth:`facts`, ``schedules``,
    :attr:`graph` and :attr:`maps`.

    Losses own no parameter: the host keeps them in a plain dict that ``.to()`` and the optimizer do not reach. What is
    learned lives in :class:`trg_torchdistill.wrappers.Student4TRG`.

    Args:
        student_module_path: Module path of the student's feature.
        student_module_io: ``input`` or ``output`` of that module.
        teacher_module_path: Module path of the teacher's feature.
        teacher_module_io: ``input`` or ``output`` of that module.
        student_tokens: :class:`~trg_torchdistill.io.TokenOptions` of the student's feature, or None.
        teacher_tokens: Those of the teacher's, or None.
        compile: Whether ``torch.compile`` makes the formulas of the loss.
        token_mask: Options of a :class:`~trg_torchdistill.losses.masks.TokenMask`, None where all tokens count.

    Attributes:
        summary: One line about the loss, for the table of keys.
        schedules: The keywords whose values move from epoch to epoch, and how.
    """

    summary: ClassVar[str]

    def __init_subclass__(cls) -> None:
        """Makes the constructor of each loss say which of its keywords is wrong, and where they stand in a YAML."""
        super().__init_subclass__()
        with_place = advice(f'change it under the `kwargs:` of `{cls.__name__}`')
        cls.__init__ = explain_keywords(cls.__name__)(with_place(cls.__init__))  # type: ignore[method-assign]

    def __init__(
        self,
        student_module_path: str,
        student_module_io: str,
        teacher_module_path: str,
        teacher_module_io: str,
        student_tokens: Mapping[str, Any] | None = None,
        teacher_tokens: Mapping[str, Any] | None = None,
        compile: bool = False,
        token_mask: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.key = type(self).__name__
        check_text('student_module_path', student_module_path)
        check_text('teacher_module_path', teacher_module_path)
        check_choice('student_module_io', student_module_io, ('input', 'output'))
        check_choice('teacher_module_io', teacher_module_io, ('input', 'output'))
        self.student_module_path, self.student_module_io = student_module_path, student_module_io
        self.teacher_module_path, self.teacher_module_io = teacher_module_path, teacher_module_io
        self.student_tokenizer = build(TokenOptions, 'student_tokens', student_tokens)
        self.teacher_tokenizer = build(TokenOptions, 'teacher_tokens', teacher_tokens)
        self.token_mask = None if token_mask is None else build(TokenMask, 'token_mask', token_mask)
        self.schedules: dict[str, WeightSchedule] = {}
        self._numbers: dict[str, float] = {}
        self._is_compiled = check_bool('compile', compile)
        self._compiled: dict[Callable[..., Tensor], Callable[..., Tensor]] = {}
        self._terms: Terms = {}
        self._means = Means()

    @property
    def current_temperature(self) -> float | None:
        """The temperature of the global term, None where there is none."""
        return None

    @property
    def graph(self) -> LocalTerm | None:
        """The term whose token graph a picture draws, None where there is no graph."""
        return None

    @property
    def maps(self) -> ImageMaps | None:
        """The N x N numbers that the loss makes of an image, None where it makes none."""
        return None

    def start_epoch(self, epoch: int, num_epochs: int) -> None:
        """Begins an epoch, counted from 0: its means, and the values of the schedules."""
        self._means.clear()
        self._numbers |= {name: schedule.at(epoch, num_epochs) for name, schedule in self.schedules.items()}

    def take(self, name: str, value: float | Mapping[str, Any], schedule: type[WeightSchedule]) -> None:
        """Takes the value of a keyword that is a number or a schedule of it.

        Raises:
            TRGError: If it is neither.
        """
        if isinstance(value, Mapping):
            self.schedules[name] = build(schedule, name, value)
        else:
            self._numbers[name] = schedule.number(name, value)

    def now(self, name: str) -> float:
        """Returns the value of such a keyword in this epoch.

        Raises:
            TRGError: If it is a schedule that was told no epoch.
        """
        if name in self._numbers:
            return self._numbers[name]
        raise TRGError(
            f'expected the schedule `{name}` to be told its epoch, got none; add '
            "`pre_epoch_process: 'pre_epoch_process_with_trg'` under `train:` (under the stage, if it has stages), or "
            f'make `{name}:` of `{self.key}` a number'
        )

    def formula(self, term: Callable[..., Tensor], is_usual: bool = True) -> Callable[..., Tensor]:
        """Returns a term, compiled if the loss is to be; not for tokens of a number that each batch has anew."""
        if not (self._is_compiled and is_usual):
            return term
        if term not in self._compiled:
            # The method and not the object: all objects would share one code, and its limit of recompilations.
            self._compiled[term] = self._guarded(torch.compile(term.__call__))  # type: ignore[operator]
        return self._compiled[term]

    def _guarded(self, compiled: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """A compiled formula that says what to change where the compiler fails."""

        def call(*arguments: Any) -> Tensor:
            try:
                return compiled(*arguments)
            except torch._dynamo.exc.TorchDynamoException as error:
                raise TRGError(
                    f'expected a machine on which `torch.compile` works, as `compile: true` of `{self.key}` wants it, '
                    f'got {told(error)}; install a C++ compiler, or write `compile: false`'
                ) from error

        return call

    def epoch_means(self) -> dict[str, float]:
        """Returns each term's mean over the steps of the epoch so far, before its weight."""
        return self._means()

    def terms(self) -> Terms:
        """Returns weight and value of each term in the last step; the value is before its weight and has its graph."""
        return dict(self._terms)

    def forward(self, student_io_dict: IoDict, teacher_io_dict: IoDict, targets: object = None) -> Tensor:
        """Returns the weighted sum of the terms, a scalar.

        Args:
            student_io_dict: The host's hooked features of the student, {path: {'input' | 'output': tensor}}.
            teacher_io_dict: The same of the teacher.
            targets: Labels; :class:`~trg_torchdistill.losses.masks.TokenMask` may take the mask from them.

        Raises:
            TRGError: If a hooked value holds no tensor; if a feature is missing or does not fit.
        """
        self._terms = self.compute(student_io_dict, teacher_io_dict, targets)
        self._means.add({name: value for name, (_, value) in self._terms.items()})
        if not self._terms:
            return self.tokens(student_io_dict, teacher_io_dict, targets).student[:0].sum()
        return torch.stack([weight * value for weight, value in self._terms.values()]).sum()

    @abstractmethod
    def compute(self, student_io_dict: IoDict, teacher_io_dict: IoDict, targets: object) -> Terms:
        """Returns weight and value of each term, scalars with a graph, for what :meth:`forward` gets in a step."""

    @torch.no_grad()
    def facts(
        self, term: str, student_io_dict: IoDict, teacher_io_dict: IoDict, batch_size: int, targets: object = None
    ) -> Facts:
        """Returns what the loss has to say of the hooked features of a step.

        Args:
            term: Name of the term in the YAML.
            student_io_dict: Hooked features of the student.
            teacher_io_dict: Hooked features of the teacher.
            batch_size: The YAML's.
            targets: Labels.
        """
        tokens = self.tokens(student_io_dict, teacher_io_dict, targets)
        return Facts(term, tokens.student.shape[1], padding=tokens.padding)

    def __getstate__(self) -> dict[str, Any]:
        """Returns what is copied and pickled: not the terms, which hold the graph of the last step, nor code."""
        return {**self.__dict__, '_terms': {}, '_compiled': {}}

    def tokens(self, student_io_dict: IoDict, teacher_io_dict: IoDict, targets: object = None) -> PairedTokens:
        """Reads both features and the mask, and returns their tokens over the common grid."""
        own = self.token_grids(student_io_dict, teacher_io_dict)
        student, teacher = pool_to_common_grid(*own)
        grid, student_grid = ((each.shape[2], each.shape[3]) for each in (student, own[0]))
        mask = None
        if self.token_mask is not None:
            place = ('student', 'teacher').index(self.token_mask.side)
            tokenizer = (self.student_tokenizer, self.teacher_tokenizer)[place]
            with advice(f'change `token_mask:` of `{self.key}`'):
                found = self.token_mask.read(self.key, (student_io_dict, teacher_io_dict)[place], targets)
                mask = self.token_mask.on_grid(found, tokenizer, own[place], grid)
        return PairedTokens(flatten_grid(student), flatten_grid(teacher), mask, grid, student_grid)

    def feature(self, side: str, io_dict: IoDict) -> Tensor:
        """Reads the feature of the ``student`` or the ``teacher``."""
        path, io, options = self.student_module_path, self.student_module_io, self.student_tokenizer
        if side == 'teacher':
            path, io, options = self.teacher_module_path, self.teacher_module_io, self.teacher_tokenizer
        return read_feature(io_dict, path, io, side, self.key, options.key, f'{side}_tokens')

    def token_grids(self, student_io_dict: IoDict, teacher_io_dict: IoDict) -> tuple[Tensor, Tensor]:
        """Reads both features and returns their token grids [B, D, h, w], not yet pooled to a common size."""
        grids = []
        for side, io_dict, path, tokenizer in (
            ('student', student_io_dict, self.student_module_path, self.student_tokenizer),
            ('teacher', teacher_io_dict, self.teacher_module_path, self.teacher_tokenizer),
        ):
            feature = self.feature(side, io_dict)
            with advice(f"`{self.key}` read the {side}'s `{path}`, change its `{side}_tokens:` or the path"):
                grids.append(tokenizer(feature))
        student, teacher = grids
        if len(student) != len(teacher):
            raise TRGError(
                f'expected student and teacher features of the same batch size, got {len(student)} from '
                f'`{self.student_module_path}` and {len(teacher)} from `{self.teacher_module_path}`; '
                f'change the module paths of `{self.key}` to features whose first dimension is the image'
            )
        layouts = (self.student_tokenizer.layout, self.teacher_tokenizer.layout)
        if 'bld' in layouts and student.shape[2:] != teacher.shape[2:]:
            raise TRGError(
                f"expected texts ('bld') of the same length, got {student[0, 0].numel()} tokens from "
                f'`{self.student_module_path}` and {teacher[0, 0].numel()} from `{self.teacher_module_path}`; '
                "both models need the same tokenisation, and `layout: 'bld'` in `student_tokens:` and "
                f'`teacher_tokens:` of `{self.key}`'
            )
        return student, teacher

    def extra_repr(self) -> str:
        """Returns the pair of features, for the host's description of the total loss."""
        return f'{self.student_module_path} <- {self.teacher_module_path}'
