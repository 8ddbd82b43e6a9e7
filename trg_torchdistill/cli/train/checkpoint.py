"""The whole state of a training, and a new box put where it stood."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchdistill.common.main_util import set_seed

from trg_torchdistill.cli.measure.run_files import Progress
from trg_torchdistill.cli.probe.wrappings import difference
from trg_torchdistill.cli.runtime.precision import FLOAT32, Precision
from trg_torchdistill.cli.runtime.processes import Processes
from trg_torchdistill.cli.runtime.random_state import random_state, set_random_state
from trg_torchdistill.errors import TRGError, placed
from trg_torchdistill.files import UnreadableError, read_saved
from trg_torchdistill.host import Box

FORMAT = 'trg_torchdistill training state, version 2'
FORMAT_OF_ONE_PROCESS = 'trg_torchdistill training state, version 1'


def training_state(
    box: Box,
    progress: Progress,
    config_text: str,
    args: Mapping[str, Any],
    processes: Processes,
    precision: Precision,
) -> dict[str, Any]:
    """Returns all that the rest of a training depends on, as tensors and plain values.

    What several processes do not share, random generators and buffers of losses, is under ``processes``, by rank; only
    the first process gets that of all. Persistent workers of a data loader keep random states of their own, which no
    other process can read: with ``persistent_workers: True`` and random transforms a resumed run sees other images.
    """
    progress.saves_teacher = progress.saves_teacher or _teacher_changes(box, progress.epochs_done)
    shared = box.state()
    modules = shared.pop('modules')
    return {
        'format': FORMAT,
        'config_text': config_text,
        'seed': args['seed'],
        'teacher_views': args['teacher_views'],
        'progress': asdict(progress),
        'modules': {
            name: state for name, state in modules.items() if progress.saves_teacher or not name.startswith('teacher')
        },
        **shared,
        'precision': precision.state(),
        'processes': processes.gathered_on_first({**box.own_state(), 'random_state': random_state()}),
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
    box: Box,
    state: dict[str, Any],
    path: Path,
    processes: Processes,
    precision: Precision,
) -> Progress:
    """Puts a newly built box, in its first stage, where the training of ``path`` stood, the random generators last.

    These start anew when the processes that continue are more or fewer than before.

    Raises:
        TRGError: If the state is of other models, losses or stages than the YAML's.
    """
    progress = Progress(**state['progress'])
    as_before = len(state['processes']) == processes.size
    own = state['processes'][processes.rank if as_before else 0]
    line = 'undo the change of the YAML, or start anew with `--overwrite` or another `--run_dir`'
    with placed(f'expected {path} to fit the models, losses and stages of the YAML, got', line):
        box.skip_to_stage(state['stage'], progress.epochs_done)
        modules = box.modules()
        for name, module_state in state['modules'].items():
            changed = difference(nn.Module.state_dict(modules[name]), module_state)
            if changed:
                raise TRGError(f'for the {name}, {changed}')
        box.load_state(state, own)
        precision.restore(state['precision'])
    set_random_state(own['random_state'])
    if not as_before:
        draw_apart(None, processes)
    return progress


def draw_apart(seed: int | None, processes: Processes) -> None:
    """Seeds all processes but the first one, without a seed from their random state, so that all draw other images."""
    if not processes.is_first:
        set_seed(processes.rank + (int(torch.randint(2**31, ())) if seed is None else seed))


def _teacher_changes(box: Box, epochs_done: int) -> bool:
    """Whether training changes the teacher: it learns, has extra modules, or was in train mode during an epoch."""
    if not box.has_teacher:
        return False
    modules = box.modules()
    teacher = modules['teacher_of_stage']
    if teacher is not modules['teacher'] or any(parameter.requires_grad for parameter in teacher.parameters()):
        return True
    return epochs_done > 0 and any(module.training for module in teacher.modules())
