"""The two files of a run: the best weights in the example trainer's format, and the whole state of the training."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchdistill.common.main_util import set_seed
from torchdistill.common.module_util import check_if_wrapped
from torchdistill.core.distillation import DistillationBox

from trg_torchdistill.cli.measure.run_files import Progress
from trg_torchdistill.cli.probe.wrappings import difference
from trg_torchdistill.cli.runtime.precision import FLOAT32, Precision
from trg_torchdistill.cli.runtime.processes import Processes
from trg_torchdistill.cli.runtime.random_state import random_state, set_random_state
from trg_torchdistill.errors import TRGError, explained
from trg_torchdistill.files import UnreadableError, read_saved, replacing

FORMAT = 'trg_torchdistill training state, version 2'
FORMAT_OF_ONE_PROCESS = 'trg_torchdistill training state, version 1'


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """Writes a file that is either complete or not there; an older one stays until the new one is on the disk."""
    with replacing(path) as stream:
        torch.save(state, stream)


def best_checkpoint(box: Any, student: nn.Module, best_value: float, args: dict[str, Any]) -> dict[str, Any]:
    """Returns the weights of the plain student in the example trainer's format; ``args`` holds plain values only."""
    return {
        'model': student.state_dict(),
        'optimizer': box.optimizer.state_dict(),
        'best_value': best_value,
        'lr_scheduler': None if box.lr_scheduler is None else box.lr_scheduler.state_dict(),
        'args': args,
    }


def training_state(
    box: Any,
    progress: Progress,
    config_text: str,
    seed: int | None,
    processes: Processes,
    precision: Precision,
) -> dict[str, Any]:
    """Returns all that the rest of a training depends on, as tensors and plain values.

    What several processes do not share, random generators and buffers of losses, is under ``processes``, by rank; only
    the first process gets that of all. Persistent workers of a data loader keep random states of their own, which no
    other process can read: with ``persistent_workers: True`` and random transforms a resumed run sees other images.
    """
    modules = box_modules(box)
    if not progress.saves_teacher:
        progress.saves_teacher = _teacher_changes(modules, progress.epochs_done)
    return {
        'format': FORMAT,
        'config_text': config_text,
        'seed': seed,
        'progress': asdict(progress),
        'stage': getattr(box, 'stage_number', 1),
        'step': box.stage_grad_count,
        'modules': {
            name: nn.Module.state_dict(module)
            for name, module in modules.items()
            if progress.saves_teacher or not name.startswith('teacher')
        },
        'in_eval_mode': {
            name: [path for path, part in module.named_modules() if not part.training]
            for name, module in modules.items()
        },
        'optimizer': box.optimizer.state_dict(),
        'lr_scheduler': None if box.lr_scheduler is None else box.lr_scheduler.state_dict(),
        'gradients': [parameter.grad for parameter in _parameters(box)],
        'precision': precision.state(),
        'processes': processes.gathered_on_first(_own_state(box)),
    }


def load_training_state(path: Path) -> dict[str, Any]:
    """Reads a file that :func:`training_state` went into, without running any code from it.

    Raises:
        TRGError: If there is none, it is damaged, or something else wrote it.
    """
    if not path.is_file():
        raise TRGError(f'expected {path} to continue from, got no such file; start without `--resume`')
    try:
        state = read_saved(path)
    except UnreadableError as error:
        raise TRGError(
            f'expected {path} to be a training state, got a file that is damaged or was written by another program: '
            f'{error}. It was left as it is. Start anew with `--overwrite` or another `--run_dir`'
        ) from error
    if isinstance(state, dict) and state.get('format') == FORMAT_OF_ONE_PROCESS:
        own = {name: state.pop(name) for name in ('criterion', 'generators', 'random_state')}
        state |= {'format': FORMAT, 'processes': [own], 'precision': FLOAT32.state()}
    if not isinstance(state, dict) or state.get('format') != FORMAT:
        raise TRGError(
            f'expected {path} to be a training state of `trg-torchdistill train`, got another checkpoint; it was left '
            'as it is. To start from its weights, name it as `src_ckpt:` of the student'
        )
    return state


def restore_training_state(
    box: Any,
    state: dict[str, Any],
    path: Path,
    processes: Processes,
    precision: Precision,
) -> Progress:
    """Puts a newly built box where the training stood, the random generators last.

    Args:
        box: Distillation or training box, in its first stage.
        state: What :func:`load_training_state` read.
        path: Where it was read from, for the message.
        processes: Those that continue; when they are more or fewer than before, random generators start anew.
        precision: Precision of the training, whose scale is restored too.

    Raises:
        TRGError: If the state is of other models, losses or stages than the YAML's.
    """
    progress = Progress(**state['progress'])
    as_before = len(state['processes']) == processes.size
    own = state['processes'][processes.rank if as_before else 0]
    line = 'undo the change of the YAML, or start anew with `--overwrite` or another `--run_dir`'
    with explained(f'expected {path} to fit the models, losses and stages of the YAML, got', line):
        if hasattr(box, 'stage_number'):
            _skip_to_stage(box, state['stage'], progress.epochs_done)
        _restore_modules(box_modules(box), state, path)
        for name, term in _terms(box).items():
            term.load_state_dict(own['criterion'][name])
        box.optimizer.load_state_dict(state['optimizer'])
        if box.lr_scheduler is not None:
            box.lr_scheduler.load_state_dict(state['lr_scheduler'])
        for parameter, gradient in zip(_parameters(box), state['gradients'], strict=True):
            parameter.grad = None if gradient is None else gradient.to(parameter.device)
        for generator, generator_state in zip(_generators(box), own['generators'], strict=True):
            generator.set_state(generator_state)
        precision.restore(state['precision'])
    box.stage_grad_count = state['step']
    set_random_state(own['random_state'])
    if not as_before:
        draw_apart(None, processes)
    return progress


def draw_apart(seed: int | None, processes: Processes) -> None:
    """Seeds all processes but the first one, without a seed from their random state, so that all draw other images."""
    if not processes.is_first:
        set_seed(processes.rank + (int(torch.randint(2**31, ())) if seed is None else seed))


def box_modules(box: Any) -> dict[str, nn.Module]:
    """Returns the plain models and what the current stage makes of them, such as a wrapper with projections."""
    if not isinstance(box, DistillationBox):
        return {'student': _unwrapped(box.org_model), 'student_of_stage': _unwrapped(box.model)}
    return {
        'student': _unwrapped(box.org_student_model),
        'student_of_stage': _unwrapped(box.student_model),
        'teacher': _unwrapped(box.org_teacher_model),
        'teacher_of_stage': _unwrapped(box.teacher_model),
    }


def _restore_modules(modules: dict[str, nn.Module], state: dict[str, Any], path: Path) -> None:
    for name, module_state in state['modules'].items():
        changed = difference(nn.Module.state_dict(modules[name]), module_state)
        if changed:
            raise TRGError(
                f'expected {path} to fit the models, losses and stages of the YAML, got for the {name}: {changed}; '
                'undo the change of the YAML, or start anew with `--overwrite` or another `--run_dir`'
            )
        nn.Module.load_state_dict(modules[name], module_state)
    for name, paths in state['in_eval_mode'].items():
        for path, part in modules[name].named_modules():
            part.training = path not in paths


def _skip_to_stage(box: Any, stage: int, epochs_done: int) -> None:
    """Advances a multi-stage box. The host would save the stage's models on the way; nothing is there to save yet."""
    train_config = box.train_config
    box.train_config = {**train_config, 'teacher': {}, 'student': {}, 'model': {}}
    while box.stage_number < stage:
        box.advance_to_next_stage()
    box.train_config = train_config
    box.current_epoch = epochs_done


def _teacher_changes(modules: dict[str, nn.Module], epochs_done: int) -> bool:
    """Whether training changes the teacher: it learns, has extra modules, or was in train mode during an epoch."""
    if 'teacher' not in modules:
        return False
    teacher = modules['teacher_of_stage']
    if teacher is not modules['teacher'] or any(parameter.requires_grad for parameter in teacher.parameters()):
        return True
    return epochs_done > 0 and any(module.training for module in teacher.modules())


def _terms(box: Any) -> dict[str, nn.Module]:
    return {name: term for name, (term, _) in getattr(box.criterion, 'term_dict', {}).items()}


def _own_state(box: Any) -> dict[str, Any]:
    """Returns what each process has of its own."""
    criterion = {name: term.state_dict() for name, term in _terms(box).items()}
    return {
        'criterion': {
            name: {key: value.cpu() if isinstance(value, Tensor) else value for key, value in term.items()}
            for name, term in criterion.items()
        },
        'generators': [generator.get_state() for generator in _generators(box)],
        'random_state': random_state(),
    }


def _parameters(box: Any) -> list[nn.Parameter]:
    return [parameter for group in box.optimizer.param_groups for parameter in group['params']]


def _generators(box: Any) -> list[torch.Generator]:
    """Returns the generators that the YAML gave to the loader of training images or its sampler."""
    loader = box.train_data_loader
    owners = (loader, loader.sampler, loader.batch_sampler)
    found = [getattr(owner, 'generator', None) for owner in owners]
    return [generator for generator in found if generator is not None]


def _unwrapped(module: nn.Module) -> nn.Module:
    inner: nn.Module = module.module if check_if_wrapped(module) else module  # type: ignore[assignment]
    return inner
