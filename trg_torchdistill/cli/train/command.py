"""``trg-torchdistill train CONFIG``: trains and tests what a torchdistill YAML describes."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path

from torch.backends import cudnn

from trg_torchdistill.cli.data.preflight import loader_paths, look_at_data
from trg_torchdistill.cli.data.rehearsal import images_by_process, rehearse
from trg_torchdistill.cli.measure.run_files import RunFiles, check_collisions, files_of_run, refuse_named_file
from trg_torchdistill.cli.measure.testing import TEST_LOADER, load_best, measure_models
from trg_torchdistill.cli.runtime.exit_codes import EXIT_INTERRUPTED
from trg_torchdistill.cli.runtime.logs import logging_to, traceback_kept
from trg_torchdistill.cli.runtime.placement import choose_placement
from trg_torchdistill.cli.runtime.precision import DTYPES, choose_precision
from trg_torchdistill.cli.runtime.processes import joined
from trg_torchdistill.cli.runtime.progress import choose_reporter
from trg_torchdistill.cli.runtime.random_state import seed_equally
from trg_torchdistill.cli.train.parallel import check_for_several_processes
from trg_torchdistill.cli.train.resume import earlier_state, resume_command
from trg_torchdistill.cli.train.start import build_models, checked_config, prepare, tell_origins
from trg_torchdistill.cli.train.tracker import tracked
from trg_torchdistill.cli.train.trainer import Trainer
from trg_torchdistill.cli.train.views import check_views

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
    parser.add_argument(
        '--teacher_views',
        type=int,
        metavar='K',
        help='store K random views of each training image with what the frozen teacher says of them, and train from '
        'these: the teacher runs K times over the images in all, and not at all where they are there',
    )
    parser.add_argument('--views_dir', metavar='DIR', help='views for many runs; default: RUN_DIR/views')
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
    with joined(args.device) as processes, logging_to(_run_log(args), processes.rank):
        reporter = choose_reporter(processes.is_first)
        placement = choose_placement(args.device, processes, args.adjust_lr)
        seed_equally(args.seed, processes)
        with processes.first_of_node_first():
            config = checked_config(args)
        if args.log_config:
            logger.info(config.data)
        if processes.are_several and not args.test_only:
            check_for_several_processes(config, reporter)
        placement = replace(placement, precision=choose_precision(args.amp, placement.device, config))
        files = files_of_run(config, args.run_dir)
        state = None
        if not args.test_only:
            check_views(args, config, processes)
            rehearse(config, placement.device, images_by_process(config, processes.size))
            check_collisions(config, files, args.run_log)
            state = earlier_state(args, config, files, processes)
        cudnn.benchmark = cudnn.benchmark or not args.disable_cudnn_benchmark
        with processes.first_of_node_first():
            teacher, student, origins = build_models(args, config, state, placement)
        paths = [*([] if args.test_only else loader_paths(config)), TEST_LOADER]
        found = look_at_data(config, paths, {'student': student, 'teacher': teacher}, placement)
        found.tell(reporter)
        progress = None
        if not args.test_only:
            with tracked(config) as tracker:
                trainer = prepare(args, config, files, state, (teacher, student), found, placement, reporter, tracker)
                tell_origins(config, origins, reporter)
                try:
                    with traceback_kept(files.error, args.run_log, lambda: _kept(trainer)):
                        trainer.train()
                except KeyboardInterrupt:
                    command = resume_command(args.words, processes)
                    reporter.say(f'interrupted; {_kept(trainer)}. Continue with:\n  {command}')
                    return EXIT_INTERRUPTED
            trainer.box.clean_modules()
            progress = trainer.progress
        weights = load_best(config, student, files.best, progress, reporter) if processes.is_first else ''
        weights = processes.from_first(weights)
        if args.test_only:
            tell_origins(config, {**origins, 'student': weights}, reporter)
        teacher = None if args.student_only else teacher
        processes.copy_from_first([student] if teacher is None else [teacher, student])
        with traceback_kept(files.error, args.run_log, str):
            measure_models(config, teacher, student, weights, placement, files, reporter)
    return 0


def _run_log(args: argparse.Namespace) -> str | None:
    """Returns ``--run_log``, once it is known that it is no other file of the run."""
    of_run = () if args.run_dir is None else RunFiles(Path(args.run_dir), Path()).beside_the_weights
    refuse_named_file('--run_log', args.run_log, args.config, *of_run)
    run_log: str | None = args.run_log
    return run_log


def _kept(trainer: Trainer) -> str:
    if not trainer.files.last.exists():
        return ''
    done = trainer.progress.epochs_done
    point = f'after epoch {done}' if done else 'before epoch 1'
    return f'{trainer.files.last} keeps the state {point} of {trainer.box.num_epochs}'
