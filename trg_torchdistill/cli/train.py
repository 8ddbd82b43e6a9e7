"""``trg-torchdistill train CONFIG``: trains and tests what a torchdistill YAML describes."""

from __future__ import annotations

import argparse
import difflib
import logging
import shlex
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.backends import cudnn

from trg_torchdistill.cli.build import (
    Placement,
    build_box,
    build_model,
    check_teacher_weights,
    choose_placement,
    has_trained_weights,
    load_optimizer,
)
from trg_torchdistill.cli.checkpoint import Progress, draw_apart, load_training_state, restore_training_state
from trg_torchdistill.cli.config import Config, import_packages, load_config
from trg_torchdistill.cli.deferred import load_deferred
from trg_torchdistill.cli.hooks import check_module_paths
from trg_torchdistill.cli.keys import check_config
from trg_torchdistill.cli.logits import check_compared_logits
from trg_torchdistill.cli.logs import logging_to, traceback_kept
from trg_torchdistill.cli.main import EXIT_INTERRUPTED
from trg_torchdistill.cli.metrics import write_metrics
from trg_torchdistill.cli.numbers import check_values
from trg_torchdistill.cli.parallel import check_for_several_processes
from trg_torchdistill.cli.precision import DTYPES, choose_precision
from trg_torchdistill.cli.preflight import Findings, loader_paths, look_at_data
from trg_torchdistill.cli.processes import Processes, joined
from trg_torchdistill.cli.progress import Reporter, choose_reporter
from trg_torchdistill.cli.random_state import seed_equally
from trg_torchdistill.cli.rehearsal import images_by_process, rehearse
from trg_torchdistill.cli.testing import TEST_LOADER, load_best, measure_models
from trg_torchdistill.cli.tracker import Tracker, check_tracker, tracked
from trg_torchdistill.cli.trainer import RunFiles, Trainer
from trg_torchdistill.errors import TRGError

logger = logging.getLogger(__name__)
MAX_CHANGES_SHOWN = 6


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
    with joined(args.device) as processes, logging_to(args.run_log, processes.rank):
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
        if not args.test_only:
            rehearse(config, placement.device, images_by_process(config, processes.size))
        files = _run_files(args, config)
        state = None if args.test_only else _earlier_state(args, files, processes)
        cudnn.benchmark = cudnn.benchmark or not args.disable_cudnn_benchmark
        with processes.first_of_node_first():
            teacher, student = _build_models(args, config, placement)
        paths = [*([] if args.test_only else loader_paths(config)), TEST_LOADER]
        found = look_at_data(config, paths, {'student': student, 'teacher': teacher}, placement)
        found.tell(reporter)
        progress = None
        if not args.test_only:
            with tracked(config) as tracker:
                trainer = _prepare(args, config, files, state, (teacher, student), found, placement, reporter, tracker)
                try:
                    with traceback_kept(files.error, args.run_log, lambda: _kept(trainer)):
                        trainer.train()
                except KeyboardInterrupt:
                    return _interrupted(args, trainer)
            trainer.box.clean_modules()
            progress = trainer.progress
        weights = load_best(config, student, files, progress, reporter) if processes.is_first else ''
        weights = processes.from_first(weights)
        tested = {'teacher': None if args.student_only else teacher, 'student': student}
        processes.copy_from_first(
            chain.from_iterable(model.state_dict().values() for model in tested.values() if model)
        )
        with traceback_kept(files.error, args.run_log, str):
            measure_models(config, tested['teacher'], student, weights, placement, files, reporter)
    return 0


def _checked_config(args: argparse.Namespace) -> Config:
    unbuilt = load_deferred(args.config)
    import_packages(unbuilt)
    check_values(unbuilt)
    config = load_config(args.config)
    check_config(config)
    if not args.test_only:
        check_tracker(config)
    return config


def _run_files(args: argparse.Namespace, config: Config) -> RunFiles:
    best = Path(config.get(*config.student_path, 'dst_ckpt')).expanduser()
    return RunFiles(best.with_suffix('') if args.run_dir is None else Path(args.run_dir).expanduser(), best)


def _earlier_state(args: argparse.Namespace, files: RunFiles, processes: Processes) -> dict[str, Any] | None:
    """Returns the state to continue from, None to start; refuses to write over an earlier run.

    Only the first process looks at the files: other nodes need not see its disk.
    """
    state: dict[str, Any] | None = processes.from_first(_stored_state(args, files) if processes.is_first else None)
    return state


def _stored_state(args: argparse.Namespace, files: RunFiles) -> dict[str, Any] | None:
    if args.resume:
        if args.start_epoch != 0:
            raise TRGError('expected either `--resume` or `--start_epoch`, got both; `--resume` knows its epoch')
        return load_training_state(files.last)
    if not args.overwrite:
        for file in (files.last, files.metrics):
            if file.exists():
                raise TRGError(
                    f'expected {files.folder} to hold no run yet, got {file.name}; continue that run with `--resume`, '
                    'replace it with `--overwrite`, or choose another `--run_dir`'
                )
    return None


def _build_models(args: argparse.Namespace, config: Config, placement: Placement) -> tuple[nn.Module | None, nn.Module]:
    """Builds the teacher, if it is needed, and the student on the device."""
    teacher = None
    if config.teacher_path is not None and not (args.test_only and args.student_only):
        check_teacher_weights(config, config.teacher_path)
        teacher = build_model(config, config.teacher_path, placement.distributed)
    student = build_model(config, config.student_path, placement.distributed)
    if not args.test_only:
        models = {'model': student} if teacher is None else {'teacher': teacher, 'student': student}
        check_module_paths(config, models)
    for model in (teacher, student):
        if model is not None:
            model.to(placement.device)
            if args.channels_last:
                model.to(memory_format=torch.channels_last)
    return teacher, student


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
        best_value = load_optimizer(box, config.get(*config.student_path, 'src_ckpt'))
        teacher_is_stored = config.teacher_path is None or has_trained_weights(config, config.teacher_path)
        progress = Progress(args.start_epoch, best_value, saves_teacher=not teacher_is_stored)
    else:
        progress = restore_training_state(box, state, files.last, processes, placement.precision)
        _compare(config, state, args, placement, reporter)
        reporter.say(_resume_line(progress, box.num_epochs, files))
    plain_args = {name: value for name, value in vars(args).items() if isinstance(value, (str, int, float, type(None)))}
    trainer = Trainer(box, models[1], files, progress, config, plain_args, reporter, placement, tracker)
    if state is None:
        trainer.save_state(progress)
    if processes.is_first:
        if state is None:
            files.test.unlink(missing_ok=True)
        files.error.unlink(missing_ok=True)
        write_metrics(files.metrics, progress.history)
    return trainer


def _compare(
    config: Config, state: dict[str, Any], args: argparse.Namespace, placement: Placement, reporter: Reporter
) -> None:
    """Warns when the YAML, the seed, the precision or the processes are not those that the run began with."""
    before, now = state['config_text'].splitlines(), config.text.splitlines()
    changes = [line for line in difflib.unified_diff(before, now, lineterm='', n=0) if line[:3] not in ('---', '+++')]
    if changes:
        reporter.say(f'WARNING: {config.path} is not what this run began with; the state may not fit its new meaning:')
        for line in changes[:MAX_CHANGES_SHOWN]:
            reporter.say(f'  {line}')
        if len(changes) > MAX_CHANGES_SHOWN:
            reporter.say(f'  ... and {len(changes) - MAX_CHANGES_SHOWN} lines more')
    if args.seed != state['seed']:
        reporter.say(
            f'WARNING: this run began with --seed {state["seed"]}, now it is {args.seed}; data sets that the YAML '
            'splits at random may be split in another way'
        )
    if args.amp != state['precision']['name']:
        reporter.say(f'WARNING: this run went on with --amp {state["precision"]["name"]}, now it is {args.amp}')
    num_before, num_now = len(state['processes']), placement.processes.size
    if num_before != num_now:
        reporter.say(
            f'WARNING: this run went on in {num_before} processes, now they are {num_now}; it continues, but not as '
            'it would have: images are shared out in another way, and a step has another number of them'
        )


def _resume_line(progress: Progress, num_epochs: int, files: RunFiles) -> str:
    done = f'{progress.epochs_done} of {num_epochs} epochs'
    if progress.epochs_done >= num_epochs:
        return f'{files.folder} is finished, {done}; only the test is left'
    return f'continuing {files.folder} after {done}'


def _kept(trainer: Trainer) -> str:
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
