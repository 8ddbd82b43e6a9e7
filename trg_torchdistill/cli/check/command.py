"""``trg-torchdistill check CONFIG``: says if a YAML will train and what a step costs, on random data or its own."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import sys
import traceback
import warnings
from collections.abc import Iterator
from typing import Any

from torchdistill.common.main_util import set_seed

from trg_torchdistill._checks import nearest
from trg_torchdistill.cli.check.batch import MAX_BATCH_SIZE, check_maps, default_batch_size
from trg_torchdistill.cli.check.cost import step_cost
from trg_torchdistill.cli.check.notices import files_under_home, guessed_size, missing_weights, stage_notices
from trg_torchdistill.cli.check.report import Report, StageReport, as_json, as_text
from trg_torchdistill.cli.check.setup import (
    Sides,
    batch_size_of,
    build_sides,
    restored_host,
    with_little_data,
    without_data_tags,
)
from trg_torchdistill.cli.check.start import Start, pulls_of, start_of
from trg_torchdistill.cli.check.steps import batches_of, first_step
from trg_torchdistill.cli.check.unread_keys import Notice, check_datasets, unread_keys
from trg_torchdistill.cli.data.logits import check_compared_logits
from trg_torchdistill.cli.data.preflight import loader_paths, look_at_data
from trg_torchdistill.cli.data.rehearsal import rehearse
from trg_torchdistill.cli.measure.run_files import check_collisions, files_of_run
from trg_torchdistill.cli.measure.testing import TEST_LOADER
from trg_torchdistill.cli.probe.arguments import add_data_arguments, positive
from trg_torchdistill.cli.probe.build import build_box, offline
from trg_torchdistill.cli.probe.hooks import check_module_paths
from trg_torchdistill.cli.probe.weights import missing_file, stage_blocks
from trg_torchdistill.cli.recipe.config import Config, UnknownHereError, load_config
from trg_torchdistill.cli.recipe.deferred import load_deferred
from trg_torchdistill.cli.recipe.keys import check_sections, check_training
from trg_torchdistill.cli.recipe.numbers import check_values
from trg_torchdistill.cli.runtime.exit_codes import EXIT_FAILED
from trg_torchdistill.cli.runtime.logs import logging_to
from trg_torchdistill.cli.runtime.placement import Placement, choose_placement
from trg_torchdistill.cli.runtime.random_state import preserved_random_state
from trg_torchdistill.cli.tasks.recognised import CLASSIFICATION, task_of
from trg_torchdistill.cli.train.tracker import check_tracker
from trg_torchdistill.errors import TRGError, explained
from trg_torchdistill.host import Box


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the sub-command."""
    parser.add_argument('config', metavar='CONFIG', help='torchdistill YAML, with or without TRG or a teacher')
    parser.add_argument('--json', action='store_true', help='print one JSON object and nothing else')
    parser.add_argument('--all-modules', action='store_true', help='list every module that runs, not a choice')
    parser.add_argument('--stage', metavar='NAME', help='training stage (stage2); default: all')
    parser.add_argument('--steps', type=positive, default=3, metavar='N', help='steps to time (3)')
    parser.add_argument(
        '--batch-size', type=positive, metavar='N', help="images a step; default: the YAML's, fewer if that is slow"
    )
    add_data_arguments(parser)
    parser.add_argument(
        '--data',
        action='store_true',
        help='also build the data sets, read a batch of each loader as `train` does, and take steps on their images',
    )
    parser.add_argument('--device', default='cpu', help='cpu (default), cuda, cuda:1, ... or auto')


def run(args: argparse.Namespace) -> int:
    """Checks a YAML and returns 0 if it will train, 1 if it will not. Nothing is written or downloaded.

    Raises:
        TRGError: If there is no such YAML, stage or device, or what the YAML means depends on its data.
    """
    config = load_deferred(args.config)
    stages = _stages(config, args.stage)
    placement = choose_placement(args.device)
    report = Report(str(config.path))
    output = sys.stderr if args.json else sys.stdout
    with _apart(), contextlib.redirect_stdout(output):
        try:
            _check(config, stages, placement, args, report)
        except UnknownHereError:
            raise
        except TRGError as error:
            report.error = str(error)
            if args.traceback:
                traceback.print_exception(error)
    if args.json:
        print(json.dumps(as_json(report)))
    else:
        for line in as_text(report, args.all_modules):
            print(line)
        if report.error is not None:
            print(f'error: {report.error}', file=sys.stderr)
    return 0 if report.error is None else EXIT_FAILED


def _stages(config: Config, name: str | None) -> list[tuple[str, ...]]:
    """Returns the stages to run; all of them if ``train:`` is no mapping, which is found later."""
    paths = config.stage_paths() if isinstance(config.get('train'), dict) else [('train',)]
    chosen = [path for path in paths if name in (None, path[-1])]
    if not chosen:
        known = [path[-1] for path in paths]
        raise TRGError(
            f'expected `--stage` to be one of {", ".join(known)}, the stages of {config.path}, got {name!r}'
            f'{nearest(name, known)}'
        )
    return chosen


def _check(
    config: Config, stages: list[tuple[str, ...]], placement: Placement, args: argparse.Namespace, report: Report
) -> None:
    """Fills a report.

    Raises:
        TRGError: At the first thing that keeps the YAML from training; the same, from a constructor.
    """
    task = task_of(config)
    if args.data and task is not CLASSIFICATION:
        raise TRGError(
            f'expected a YAML for image classification with `--data`, which looks at images and classes, got one for '
            f'{task.name}; leave `--data` out: {task.command(config, str(config.path))} reads the data'
        )
    task.import_packages(config)
    check_values(config)
    check_tracker(config)
    report.notices += unread_keys(config, task)
    as_trained = task.as_trained(config)
    check_sections(as_trained)
    resolved = without_data_tags(as_trained)
    task.check_models(resolved)
    check_training(resolved)
    rehearse(resolved, placement.device)
    check_collisions(resolved)
    if task is CLASSIFICATION:
        try:
            check_collisions(resolved, files_of_run(resolved, None))
        except TRGError as error:
            report.notices.append(Notice('files', f'`train` without `--run_dir` will refuse this: {error}'))
    check_datasets(config)
    sides = build_sides(task, config, stages[0], args.input_size, args.num_classes)
    report.sides, report.hooked = sides, _hooked(resolved, stages, sides)
    report.notices += guessed_size(config, sides, report.hooked)
    for path in (*config.model_paths, *stage_blocks(resolved)):
        report.notices += [] if task is CLASSIFICATION else files_under_home(config, path)
        file = missing_file(resolved, path)
        if file is not None:
            report.notices.append(missing_weights(config, path, file, task is CLASSIFICATION))
    names = {'student': config.side_names[-1], 'teacher': 'teacher'}
    with explained('building the auxiliary model wrappers failed'):
        check_module_paths(resolved, {names[side]: probe.model for side, probe in sides.probes.items()})
    wanted = max(batch_size_of(resolved, stage) for stage in stages)
    fitting = min(check_maps(resolved, stage, sides.probes, wanted) for stage in stages)
    most = fitting if args.data else MAX_BATCH_SIZE
    report.batch_size = args.batch_size or default_batch_size(sides.probes, fitting, report.notices, most)
    models = {side: probe.model.to(placement.device) for side, probe in sides.probes.items()}
    own: dict[str, Any] = {}
    starts: dict[tuple[str, ...], Start] = {}
    if args.data:
        real = load_config(args.config)
        found = look_at_data(real, [*loader_paths(real), TEST_LOADER], models, placement)
        report.data = found.looked_at
        report.notices += [Notice('data', warning) for warning in found.warnings]
        own = _training_data(real)
        report.is_on_data = bool(own)
        starts = {stage: start_of(real, stage, sides, own) for stage in stages}
    runnable = with_little_data(resolved, sides, report.batch_size, args.steps + 1, own)
    box = build_box(runnable, models.get('teacher'), models['student'], placement)
    for stage in resolved.stage_paths():
        if stage != resolved.stage_paths()[0]:
            with explained(f'the change to {resolved.where(*stage)} failed'):
                box.advance_to_next_stage()
        if stage in stages:
            report.stages.append(_run_stage(resolved, stage, box, sides, args, report, starts.get(stage)))


def _training_data(config: Config) -> dict[str, Any]:
    """Returns the data sets of the training loaders by key, without those whose items are whole batches."""
    loaders = [config.mapping(*path) for path in loader_paths(config) if path[-1] == 'train_data_loader']
    of_items = [
        each for each in loaders if each.get('batch_sampler') or each['kwargs'].get('batch_size', 1) is not None
    ]
    return {each['dataset_id']: config.mapping('datasets')[each['dataset_id']] for each in of_items}


def _run_stage(
    config: Config,
    stage: tuple[str, ...],
    box: Box,
    sides: Sides,
    args: argparse.Namespace,
    report: Report,
    start: Start | None,
) -> StageReport:
    name, num_epochs = '.'.join(stage), config.get(*stage, 'num_epochs')
    batch_size = batch_size_of(config, stage)
    check_compared_logits(config, box, {side: probe.num_logits for side, probe in sides.probes.items()})
    with explained(f'the pre-epoch process of `{name}` failed'):
        box.pre_epoch_process(epoch=box.first_epoch)
    batches = batches_of(sides.task, box, args.steps + 1)
    first = first_step(config, box, sides.probes['student'].model, batches[0], batch_size, sides.task.returns_logits)
    report.notices += stage_notices(config, stage, box, first, sides)
    pulls, untold = ([], '') if start is None else pulls_of(first.terms, box.criterion, start)
    return StageReport(name, num_epochs, batch_size, first, step_cost(box, batches, args.steps), pulls, untold)


def _hooked(config: Config, stages: list[tuple[str, ...]], sides: Sides) -> dict[str, set[str]]:
    """Returns the modules of each model that the stages hook, by their paths in it."""
    found: dict[str, set[str]] = {'teacher': set(), 'student': set()}
    for stage, name, end in itertools.product(stages, config.side_names, ('input', 'output')):
        side = 'teacher' if name == 'teacher' else 'student'
        records = [sides.probes[side].record(str(path)) for path in config.get(*stage, name, 'forward_hook', end) or ()]
        found[side] |= {record.path for record in records if record is not None}
    return found


@contextlib.contextmanager
def _apart() -> Iterator[None]:
    """Keeps the process as it was: random state, seed, the host's classes, log, warnings; and off the network."""
    with restored_host(), preserved_random_state(), offline(), logging_to(None), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        set_seed(0)
        yield
