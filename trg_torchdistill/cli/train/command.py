"""``trg-torchdistill train CONFIG``: trains and tests what a torchdistill YAML describes."""

from __future__ import annotations

import argparse
import contextlib
import logging
import shlex
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.backends import cudnn

from trg_torchdistill.cli.data.logits import check_compared_logits
from trg_torchdistill.cli.data.preflight import Findings, loader_paths, look_at_data
from trg_torchdistill.cli.data.rehearsal import images_by_process, rehearse
from trg_torchdistill.cli.measure.run_files import Progress, RunFiles, check_collisions, files_of_run, refuse_named_file
from trg_torchdistill.cli.measure.testing import TEST_LOADER, load_best, measure_models
from trg_torchdistill.cli.probe.build import build_box, build_model, build_with_weights
from trg_torchdistill.cli.probe.hooks import check_module_paths
from trg_torchdistill.cli.probe.weights import has_trained_weights, load_optimizer, weights_alone
from trg_torchdistill.cli.recipe.config import Config, import_packages, load_config
from trg_torchdistill.cli.recipe.deferred import load_deferred
from trg_torchdistill.cli.recipe.keys import check_config
from trg_torchdistill.cli.recipe.numbers import check_values
from trg_torchdistill.cli.runtime.exit_codes import EXIT_INTERRUPTED
from trg_torchdistill.cli.runtime.logs import logging_to, traceback_kept
from trg_torchdistill.cli.runtime.placement import Placement, choose_placement
from trg_torchdistill.cli.runtime.precision import DTYPES, choose_precision
from trg_torchdistill.cli.runtime.processes import Processes, joined
from trg_torchdistill.cli.runtime.progress import Reporter, choose_reporter
from trg_torchdistill.cli.runtime.random_state import seed_equally
from trg_torchdistill.cli.train.checkpoint import draw_apart, load_training_state, restore_training_state
from trg_torchdistill.cli.train.metrics import write_metrics
from trg_torchdistill.cli.train.parallel import check_for_several_processes
from trg_torchdistill.cli.train.resume import check_unchanged, tell_changes
from trg_torchdistill.cli.train.tracker import Tracker, check_tracker, tracked
from trg_torchdistill.cli.train.trainer import Trainer
from trg_torchdistill.errors import TRGError

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the sub-command; those of the example trainer have its names and meaning."""
    parser.add_argument('config', metavar='CONFIG', help='YAML file, the same as for the example trainer')
    parser.add_argument('--device', default='auto', help='auto (a GPU where there is one), cpu, cuda, cuda:1, ...')
    parser.add_argument('--run_log', metavar='FILE', help="file that gets torchdistill's log")
    parser.add_argument(
        '--seed',
        type=int,
        help='seed of the random generators; under torchrun all processes build equal models with it, and process r '
        'then draws its augmentations and tokens with SEED + r',
    )
    parser.add_argument(
        '--start_epoch', type=int, default=0, metavar='N', help="continue the student's src_ckpt from N"
    )
    parser.add_argument('-disable_cudnn_benchmark', action='store_true', help='disable torch.backends.cudnn.benchmark')
    parser.add_argument('-test_only', action='store_true', help='only test the models')
    parser.add_argument('-student_only', action='store_true', help='test the student only')
    parser.add_argument('-log_config', action='store_true', help='write the configuration to the log')
    parser.add_argument('-adjust_lr', action='store_true', help='multiply the learning rate by the number of processes')
    parser.add_argument(
        '--amp', choices=sorted(DTYPES), help='mixed precision; fp16 scales the gradients (default: float32)'
    )
    parser.add_argument(
        '--channels_last', action='store_true', help='lay weights and features out as NHWC: faster convolutions'
    )
    parser.add_argument('--run_dir', metavar='DIR', help='state, metrics and results; default: dst_ckpt without suffix')
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument('--resume', action='store_true', help='continue the run of RUN_DIR where it stopped')
    existing.add_argument('--overwrite', action='store_true', help='start anew although RUN_DIR holds a run')


def run(args: argparse.Namespace) -> int:
    """Trains and tests, and returns the exit code: 0 when done, 130 when Ctrl-C stopped the training.

    Raises:
        TRGError: For a mistake in the YAML or the command line.
        RunError: If the loss becomes NaN or infinite.
    """
    with joined(args.device) as processes, _logging_to(args, processes):
        reporter = choose_reporter(processes.is_first)
        placement = choose_placement(args.device, processes, args.adjust_lr)
        seed_equally(args.seed, processes)
        with processes.first_of_node_first():
            config = _checked_config(args)
        if args.log_config:
            logger.info(config.data)
        if processes.are_several and not args.test_only:
            check_for_several_processes(config, reporter)
        placement = replace(placement, precision=choose_precision(args.amp, placement.device, config))
        files = files_of_run(config, args.run_dir)
        if not args.test_only:
            rehearse(config, placement.device, images_by_process(config, processes.size))
            check_collisions(config, files, args.run_log)
        state = None if args.test_only else _earlier_state(args, config, files, processes)
        cudnn.benchmark = cudnn.benchmark or not args.disable_cudnn_benchmark
        with processes.first_of_node_first():
            teacher, student, origins = _build_models(args, config, state, placement)
        paths = [*([] if args.test_only else loader_paths(config)), TEST_LOADER]
        found = look_at_data(config, paths, {'student': student, 'teacher': teacher}, placement)
        found.tell(reporter)
        progress = None
        if not args.test_only:
            with tracked(config) as tracker:
                trainer = _prepare(args, config, files, state, (teacher, student), found, placement, reporter, tracker)
                _tell_origins(config, origins, reporter)
                try:
                    with traceback_kept(files.error, args.run_log, lambda: _kept(trainer)):
                        trainer.train()
                except KeyboardInterrupt:
                    return _interrupted(args, trainer)
            trainer.box.clean_modules()
            progress = trainer.progress
        weights = load_best(config, student, files.best, progress, reporter) if processes.is_first else ''
        weights = processes.from_first(weights)
        if args.test_only:
            _tell_origins(config, {**origins, 'student': weights}, reporter)
        tested = {'teacher': None if args.student_only else teacher, 'student': student}
        processes.copy_from_first(
            chain.from_iterable(model.state_dict().values() for model in tested.values() if model)
        )
        with traceback_kept(files.error, args.run_log, str):
            measure_models(config, tested['teacher'], student, weights, placement, files, reporter)
    return 0


@contextlib.contextmanager
def _logging_to(args: argparse.Namespace, processes: Processes) -> Iterator[None]:
    """Opens the log, once it is known that it is no other file of the run."""
    folder = [] if args.run_dir is None else [Path(args.run_dir)]
    of_run = [file for each in folder for file in RunFiles(each, each).beside_the_weights]
    refuse_named_file('--run_log', args.run_log, args.config, *of_run)
    with logging_to(args.run_log, processes.rank):
        yield


def _checked_config(args: argparse.Namespace) -> Config:
    unbuilt = load_deferred(args.config)
    import_packages(unbuilt)
    check_values(unbuilt)
    config = load_config(args.config)
    check_config(config)
    if not args.test_only:
        check_tracker(config)
    return config


def _earlier_state(
    args: argparse.Namespace, config: Config, files: RunFiles, processes: Processes
) -> dict[str, Any] | None:
    """Returns the state to continue from, None to start; refuses to write over an earlier run, or to mix two.

    Only the first process looks at the files: other nodes need not see its disk.
    """
    state: dict[str, Any] | None = processes.from_first(
        _stored_state(args, config, files) if processes.is_first else None
    )
    return state


def _stored_state(args: argparse.Namespace, config: Config, files: RunFiles) -> dict[str, Any] | None:
    if args.resume:
        if args.start_epoch != 0:
            raise TRGError('expected either `--resume` or `--start_epoch`, got both; `--resume` knows its epoch')
        state = load_training_state(files.last)
        check_unchanged(config, state, files)
        return state
    if not args.overwrite:
        for file in (files.last, files.metrics):
            if file.exists():
                raise TRGError(
                    f'expected {files.folder} to hold no run yet, got {file.name}; continue that run with `--resume`, '
                    'replace it with `--overwrite`, or choose another `--run_dir`'
                )
    return None


def _build_models(
    args: argparse.Namespace, config: Config, state: dict[str, Any] | None, placement: Placement
) -> tuple[nn.Module | None, nn.Module, dict[str, str]]:
    """Builds the teacher, if it is needed, and the student on the device; tells by side where their weights are from.

    Those of a student that is only tested, and those of the state of a resumed run, are loaded later.
    """
    loaded_later = {'student'} if args.test_only else set(() if state is None else state['modules'])
    sides = {'student': config.student_path}
    if config.teacher_path is not None and not (args.test_only and args.student_only):
        sides = {'teacher': config.teacher_path, **sides}
    models, origins = {}, {}
    for side, path in sides.items():
        if side in loaded_later:
            models[side], origins[side] = build_model(config, path, placement.distributed), 'those of the run'
        else:
            models[side], origins[side] = build_with_weights(config, path, placement.distributed)
    if not args.test_only:
        check_module_paths(config, models if config.teacher_path else {'model': models['student']})
    for model in models.values():
        model.to(placement.device)
        if args.channels_last:
            model.to(memory_format=torch.channels_last)
    return models.get('teacher'), models['student'], origins


def _tell_origins(config: Config, origins: dict[str, str], reporter: Reporter) -> None:
    for side, origin in origins.items():
        path = config.student_path if side == 'student' else config.teacher_path or ()
        reporter.say(f'weights of the {side} {config.get(*path, "key")}: {origin}')


def _prepare(
    args: argparse.Namespace,
    config: Config,
    files: RunFiles,
    state: dict[str, Any] | None,
    models: tuple[nn.Module | None, nn.Module],
    found: Findings,
    placement: Placement,
    reporter: Reporter,
    tracker: Tracker,
) -> Trainer:
    """Returns a trainer at its first epoch or where the earlier run stopped; only now files are written."""
    box = build_box(config, *models, placement)
    check_compared_logits(config, box, found.num_classes)
    if args.start_epoch != 0 and hasattr(box, 'stage_number'):
        raise TRGError(
            'expected `--start_epoch 0` for a training in stages, of which torchdistill does not know where an epoch '
            f'belongs, got {args.start_epoch}; continue a run with `--resume`'
        )
    processes = placement.processes
    draw_apart(args.seed, processes)
    if state is None:
        best_value = _load_optimizer(box, config.get(*config.student_path, 'src_ckpt'), reporter)
        teacher_is_stored = config.teacher_path is None or has_trained_weights(config, config.teacher_path)
        progress = Progress(args.start_epoch, best_value, saves_teacher=not teacher_is_stored)
    else:
        progress = restore_training_state(box, state, files.last, processes, placement.precision)
        tell_changes(config, state, args, processes, reporter)
        reporter.say(_resume_line(progress, box.num_epochs, files))
    plain_args = {name: value for name, value in vars(args).items() if isinstance(value, (str, int, float, type(None)))}
    trainer = Trainer(
        box, models[1], files, progress, config, plain_args, reporter, placement, tracker, is_new=state is None
    )
    if state is None:
        trainer.save_state(progress)
    if processes.is_first:
        if state is None:
            files.test.unlink(missing_ok=True)
        files.error.unlink(missing_ok=True)
        write_metrics(files.metrics, progress.history)
    return trainer


def _load_optimizer(box: Any, source: str | None, reporter: Reporter) -> float:
    """Continues the optimizer of the student's ``src_ckpt``, if it has one, and says so; returns its best accuracy."""
    best_value = load_optimizer(box, source)
    if best_value is None:
        return 0.0
    reporter.say(
        f'optimizer, scheduler and best accuracy {best_value:.2f} go on from {source}, not as the YAML has them; to '
        f'start from its weights alone, name the file that this writes: {weights_alone(str(source))}'
    )
    return best_value


def _resume_line(progress: Progress, num_epochs: int, files: RunFiles) -> str:
    done = f'{progress.epochs_done} of {num_epochs} epochs'
    if progress.epochs_done >= num_epochs:
        return f'{files.folder} is finished, {done}; only the test is left'
    return f'continuing {files.folder} after {done}'


def _kept(trainer: Trainer) -> str:
    if not trainer.files.last.exists():
        return ''
    done, total = trainer.progress.epochs_done, trainer.box.num_epochs
    state = f'the state after epoch {done} of {total}' if done else f'the state before epoch 1 of {total}'
    return f'{trainer.files.last} keeps {state}'


def _interrupted(args: argparse.Namespace, trainer: Trainer) -> int:
    command = _resume_command(args, trainer.processes)
    trainer.reporter.say(f'interrupted; {_kept(trainer)}. Continue with:\n  {command}')
    return EXIT_INTERRUPTED


def _launcher(processes: Processes) -> list[str]:
    """Returns how this command was started, as far as a process knows."""
    if not processes.are_several:
        return ['trg-torchdistill']
    words = ['torchrun', '--nproc_per_node', str(processes.local_size)]
    if processes.size > processes.local_size:
        nodes = str(processes.size // processes.local_size)
        words += ['--nnodes', nodes, '--rdzv_backend', 'c10d', '--rdzv_endpoint', 'HOST:PORT']
    return [*words, '-m', 'trg_torchdistill']


def _resume_command(args: argparse.Namespace, processes: Processes) -> str:
    """Returns the command that continues this run."""
    words = [*_launcher(processes), 'train', args.config]
    for name, default in (('device', 'auto'), ('run_log', None), ('seed', None), ('amp', None), ('run_dir', None)):
        value = getattr(args, name)
        if value != default:
            words += [f'--{name}', str(value)]
    for name in ('disable_cudnn_benchmark', 'student_only', 'log_config', 'adjust_lr'):
        if getattr(args, name):
            words.append(f'-{name}')
    if args.channels_last:
        words.append('--channels_last')
    return shlex.join([*words, '--resume'])
