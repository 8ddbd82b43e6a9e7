"""The one place that knows torchdistill's boxes: what the package reads of them and does to them, with types."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib.metadata import version
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from trg_torchdistill.errors import TRGError
from trg_torchdistill.losses import RelationLoss
from trg_torchdistill.wrappers import unwrapped

T = TypeVar('T')
OF_A_SIDE = ('{model}', 'org_{model}', '{side}_io_dict', '{side}_forward_proc', '{side}_any_frozen')
OF_STAGES = ('train_config', 'stage_end_epoch', 'current_epoch', 'advance_to_next_stage')


class Attribute(Generic[T]):
    """An attribute of the host's box, read and set under its own name."""

    def __set_name__(self, owner: type[Box], name: str) -> None:
        self._name = name

    def __get__(self, box: Box, owner: type[Box]) -> T:
        value: T = getattr(box.host, self._name)
        return value

    def __set__(self, box: Box, value: T) -> None:
        setattr(box.host, self._name, value)


class Box:
    """A typed view of a distillation or training box; it keeps nothing of it, since each stage makes its parts anew.

    A side is ``teacher`` or ``student``, or ``model`` in a box without a teacher.

    Args:
        host: A box of torchdistill, or what is like one.

    Raises:
        TRGError: If it lacks something that the package needs, as in a torchdistill that it does not know.
    """

    device = Attribute[torch.device]()
    num_epochs = Attribute[int]()
    train_data_loader = Attribute[DataLoader[Any]]()
    val_data_loader = Attribute[DataLoader[Any]]()
    criterion = Attribute[nn.Module]()
    optimizer = Attribute[Optimizer]()
    lr_scheduler = Attribute[LRScheduler | None]()
    scheduling_step = Attribute[int]()
    stage_grad_count = Attribute[int]()
    grad_accum_step = Attribute[int]()
    max_grad_norm = Attribute[float | None]()
    pre_epoch_process = Attribute[Callable[..., None]]()
    forward_process = Attribute[Callable[..., Any]]()
    post_forward_process = Attribute[Callable[..., None]]()
    post_epoch_process = Attribute[Callable[..., None]]()
    clean_modules = Attribute[Callable[[], None]]()

    def __init__(self, host: object) -> None:
        self.host: Any = host
        self.has_teacher = hasattr(host, 'teacher_model')
        self.has_stages = hasattr(host, 'stage_number')
        self.sides = ('teacher', 'student') if self.has_teacher else ('model',)
        names = [name for name, value in vars(Box).items() if isinstance(value, Attribute)]
        names += [name.format(side=side, model=_model(side)) for side in self.sides for name in OF_A_SIDE]
        names += [*(['teacher_updatable'] if self.has_teacher else []), *(OF_STAGES if self.has_stages else [])]
        missing = [f'`{name}`' for name in names if not hasattr(host, name)]
        if missing:
            raise TRGError(
                f'expected torchdistill with boxes that have {", ".join(missing)}, got version '
                f'{version("torchdistill")}, of which a `{type(host).__name__}` has not; install a version of '
                'torchdistill that this trg_torchdistill knows'
            )

    def model(self, side: str) -> nn.Module:
        """Returns the model of a side with what the stage puts around it."""
        found: nn.Module = getattr(self.host, _model(side))
        return found

    def replace_model(self, side: str, model: nn.Module) -> None:
        """Sets what :meth:`model` returns."""
        setattr(self.host, _model(side), model)

    @property
    def student(self) -> nn.Module:
        """The model of the stage that learns, with what the stage puts around it."""
        return self.model(self.sides[-1])

    @property
    def teacher(self) -> nn.Module | None:
        """That of the teacher, None without one."""
        return self.model('teacher') if self.has_teacher else None

    @property
    def teacher_is_frozen(self) -> bool:
        """Whether the stage has a teacher, and trains nothing of it."""
        return self.has_teacher and not self.host.teacher_updatable

    def modules(self) -> dict[str, nn.Module]:
        """Returns the plain models and what the current stage makes of them, such as a wrapper with projections."""
        found = {}
        for side in reversed(self.sides):
            name = 'student' if side == 'model' else side
            found[name] = unwrapped(getattr(self.host, f'org_{_model(side)}'))
            found[f'{name}_of_stage'] = unwrapped(self.model(side))
        return found

    def any_frozen(self, side: str) -> bool:
        """Whether the stage freezes a part of a model, or all of it."""
        return bool(getattr(self.host, f'{side}_any_frozen'))

    def forward_proc(self, side: str) -> Callable[..., Any]:
        """Returns the forward process of a side."""
        found: Callable[..., Any] = getattr(self.host, f'{side}_forward_proc')
        return found

    def teacher_output(self, images: Any, targets: Any, supplement: Any) -> tuple[Any, dict[str, dict[str, Any]]]:
        """Runs the teacher; returns its output, and what is hooked by path and ``input`` or ``output``."""
        output, features = self.host.get_teacher_output(images, targets, supplement)
        return output, features

    def replace_teacher(self, forward: Callable[..., Any]) -> None:
        """Sets the forward process of the teacher, for this stage."""
        self.host.teacher_forward_proc = forward

    def put_features(self, side: str, features: Mapping[str, Mapping[str, Any]]) -> None:
        """Puts features where the hooks of a side put them in its forward pass."""
        for path, values in features.items():
            found = getattr(self.host, f'{side}_io_dict')[path]
            found.update({io: {str(self.device): value} for io, value in values.items()})

    def hooked(self) -> dict[str, list[str]]:
        """Returns the module paths whose features the stage hooks, by side."""
        return {side: list(getattr(self.host, f'{side}_io_dict')) for side in self.sides}

    @property
    def terms(self) -> dict[str, tuple[nn.Module, float]]:
        """The terms of the total loss with their weights, by their names in the YAML."""
        return terms_of(self.criterion)

    @contextlib.contextmanager
    def without(self, terms: Collection[str]) -> Iterator[None]:
        """Takes terms out of the total loss inside the block."""
        criterion: Any = self.criterion
        before = criterion.term_dict
        criterion.term_dict = {name: term for name, term in before.items() if name not in terms}
        try:
            yield
        finally:
            criterion.term_dict = before

    @property
    def trained(self) -> list[nn.Parameter]:
        """The parameters that the optimizer has."""
        return [parameter for group in self.optimizer.param_groups for parameter in group['params']]

    @property
    def stage(self) -> int:
        """Number of the running stage; 1 in a training without stages."""
        return int(self.host.stage_number) if self.has_stages else 1

    @property
    def first_epoch(self) -> int:
        """First epoch of the running stage, counted from 0 over all stages."""
        return int(self.host.stage_end_epoch) - self._epochs_of_stage() if self.has_stages else 0

    def epoch_in_stage(self, epoch: int) -> tuple[int, int]:
        """Returns the epoch counted from the start of the running stage, and the stage's number of epochs."""
        return epoch - self.first_epoch, self._epochs_of_stage()

    def advance_to_next_stage(self) -> None:
        """Goes on to the next stage."""
        self.host.advance_to_next_stage()

    def skip_to_stage(self, stage: int, epochs_done: int) -> None:
        """Goes on to a stage. The host would save each stage's models on the way; nothing is there to save yet."""
        if not self.has_stages:
            return
        train_config = self.host.train_config
        self.host.train_config = {**train_config, 'teacher': {}, 'student': {}, 'model': {}}
        while self.stage < stage:
            self.advance_to_next_stage()
        self.host.train_config = train_config
        self.host.current_epoch = epochs_done

    def optimizer_state(self) -> dict[str, Any]:
        """Returns the state of the optimizer and the scheduler, under the example trainer's keys."""
        scheduler = self.lr_scheduler
        return {
            'optimizer': self.optimizer.state_dict(),
            'lr_scheduler': None if scheduler is None else scheduler.state_dict(),
        }

    def state(self) -> dict[str, Any]:
        """Returns all that the rest of the training depends on and several processes share."""
        modules = self.modules()
        return {
            'stage': self.stage,
            'step': self.stage_grad_count,
            'modules': {name: nn.Module.state_dict(module) for name, module in modules.items()},
            'in_eval_mode': {
                name: [path for path, part in module.named_modules() if not part.training]
                for name, module in modules.items()
            },
            **self.optimizer_state(),
            'gradients': [parameter.grad for parameter in self.trained],
        }

    def own_state(self) -> dict[str, Any]:
        """Returns what each of several processes has of its own: buffers of losses, random generators of loaders."""
        criterion = {name: term.state_dict() for name, (term, _) in self.terms.items()}
        return {
            'criterion': {
                name: {key: value.cpu() if isinstance(value, Tensor) else value for key, value in term.items()}
                for name, term in criterion.items()
            },
            'generators': [generator.get_state() for generator in self._generators()],
        }

    def load_state(self, state: Mapping[str, Any], own: Mapping[str, Any]) -> None:
        """Puts a new box, in its stage, where one stood with :meth:`state` and :meth:`own_state`."""
        modules = self.modules()
        for name, module_state in state['modules'].items():
            nn.Module.load_state_dict(modules[name], module_state)
        for name, paths in state['in_eval_mode'].items():
            for path, part in modules[name].named_modules():
                part.training = path not in paths
        for name, (term, _) in self.terms.items():
            term.load_state_dict(own['criterion'][name])
        self.optimizer.load_state_dict(state['optimizer'])
        if self.lr_scheduler is not None:
            self.lr_scheduler.load_state_dict(state['lr_scheduler'])
        for parameter, gradient in zip(self.trained, state['gradients'], strict=True):
            parameter.grad = None if gradient is None else gradient.to(parameter.device)
        for generator, generator_state in zip(self._generators(), own['generators'], strict=True):
            generator.set_state(generator_state)
        self.stage_grad_count = state['step']

    def _epochs_of_stage(self) -> int:
        return int(self.host.train_config[f'stage{self.stage}']['num_epochs'] if self.has_stages else self.num_epochs)

    def _generators(self) -> list[torch.Generator]:
        """Returns the generators that the YAML gave to the loader of training images or its sampler."""
        loader = self.train_data_loader
        owners = (loader, loader.sampler, loader.batch_sampler)
        found = [getattr(owner, 'generator', None) for owner in owners]
        return [generator for generator in found if generator is not None]


def terms_of(criterion: object) -> dict[str, tuple[nn.Module, float]]:
    """Returns the terms of the host's total loss with their weights; none for a loss that keeps none.

    The host keeps them in a plain dict, where ``modules()`` does not see them.
    """
    found: dict[str, tuple[nn.Module, float]] = getattr(criterion, 'term_dict', {})
    return found


def has_model_term(criterion: object) -> bool:
    """Whether the host's total loss has what the models return as losses in it, too."""
    return bool(getattr(criterion, 'model_loss_factor', None))


def relation_losses(criterion: object) -> dict[str, RelationLoss]:
    """Returns our losses in the host's total loss, by their YAML names."""
    losses = {}
    for name, (term, _) in terms_of(criterion).items():
        for module in term.modules():
            if isinstance(module, RelationLoss):
                losses[name] = module
    return losses


def _model(side: str) -> str:
    """Returns the name under which a box has the model of a side."""
    return side if side == 'model' else f'{side}_model'
