"""``trg-torchdistill add CONFIG -o NEW``: writes TRG into a torchdistill YAML, and changes nothing else in it."""

from __future__ import annotations

import argparse
import difflib
import sys
from dataclasses import replace
from pathlib import Path

import torch

from trg_torchdistill.cli.add.choice import Choice, Plan
from trg_torchdistill.cli.add.plan import make_plan
from trg_torchdistill.cli.add.report import report
from trg_torchdistill.cli.add.targets import check_teacher, choose_stage
from trg_torchdistill.cli.probe.arguments import add_data_arguments, not_negative
from trg_torchdistill.cli.probe.staged import of_stage
from trg_torchdistill.cli.probe.trial import guess_warning, try_sizes
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.recipe.deferred import load_deferred, parse_deferred
from trg_torchdistill.cli.recipe.edit import EditError, edit_text, list_changes
from trg_torchdistill.cli.recipe.nest import nest
from trg_torchdistill.cli.recipe.numbers import check_values
from trg_torchdistill.cli.tasks.recognised import task_of
from trg_torchdistill.errors import TRGError
from trg_torchdistill.files import replacing
from trg_torchdistill.io import TokenOptions
from trg_torchdistill.losses.recipes import RECIPES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the sub-command."""
    parser.add_argument('config', metavar='CONFIG', help='torchdistill YAML with a teacher; it is not changed')
    parser.add_argument('-o', '--output', metavar='NEW', help='YAML file to write')
    parser.add_argument('--overwrite', action='store_true', help='replace NEW if it exists')
    parser.add_argument('--diff', action='store_true', help='print what would change, write nothing')
    parser.add_argument('--student-layer', metavar='PATH', help='module of the student; default: its last feature map')
    parser.add_argument('--teacher-layer', metavar='PATH', help='module of the teacher; default: its last feature map')
    parser.add_argument('--stage', metavar='NAME', help='training stage (stage2); default: the last with a teacher')
    parser.add_argument('--weight', type=not_negative, default=1.0, metavar='W', help='weight of the trg term (1.0)')
    parser.add_argument(
        '--contextual-weight',
        type=not_negative,
        metavar='W',
        help='weight of a contextual term; 0 writes none (0, with --recipe literal 1.0)',
    )
    parser.add_argument(
        '--recipe',
        choices=RECIPES,
        default='default',
        help='edges, rows and targets of TRGLoss: its defaults, or those of the paper read literally, which has a '
        'contextual term too (default)',
    )
    add_data_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Writes the new YAML, or prints the difference, and returns 0.

    Raises:
        TRGError: If TRG cannot be added; nothing is written then.
    """
    config = load_deferred(args.config)
    if not args.diff:
        _check_output(args)
    stage = choose_stage(config, args.stage)
    task = task_of(config)
    task.import_packages(config)
    check_values(config)
    task.check_models(config)
    trial = try_sizes(task, config, stage, args.input_size, args.num_classes)
    trial = replace(
        trial, probes={side: of_stage(config, (*stage, side), probe) for side, probe in trial.probes.items()}
    )
    trains_teacher = check_teacher(config, stage, trial.probes['teacher'])
    wanted = {'teacher': args.teacher_layer, 'student': args.student_layer}
    layers = {side: task.default_layer(probe, side, wanted[side]) for side, probe in trial.probes.items()}
    if config.get(*stage, 'student', 'sequential'):  # nothing can be learned beside it: rather a layer of its width
        layers['teacher'] = task.default_layer(trial.probes['teacher'], 'teacher', wanted['teacher'], layers['student'])
    for side, record in layers.items():
        try:  # as the losses will, on an output of the same shape
            TokenOptions(**record.tokens)(torch.zeros(record.shape or ()))
        except TRGError as error:
            raise TRGError(f'the output of `{record.path}` of the {side} cannot be cut into tokens: {error}') from error
    recipe = RECIPES[args.recipe]
    if args.contextual_weight is not None:
        recipe = replace(recipe, contextual_weight=args.contextual_weight)
    choice = Choice(
        stage,
        layers['teacher'],
        layers['student'],
        args.weight,
        task.logits_only(trial.probes),
        recipe,
        task.mask(config, trial.probes),
        trial.probes['student'].logits_at,
        task.packages,
        trains_teacher,
        is_wrapped=config.get(*stage, 'student', 'auxiliary_model_wrapper', 'key') is not None,
    )
    plan = make_plan(config, choice)
    text = _upgraded_text(config, plan)
    warning = guess_warning(task, trial.size, [(probe, [layers[side].path]) for side, probe in trial.probes.items()])
    if args.diff:
        name = str(config.path)
        for line in difflib.unified_diff(config.text.splitlines(), text.splitlines(), name, args.output or name):
            print(line.rstrip('\r\n'))
        if warning is not None:
            print(f'WARNING: {warning}', file=sys.stderr)
        return 0
    with replacing(Path(args.output).expanduser()) as stream:
        stream.write(text.encode())
    for line in report(config, task, trial, choice, plan, (text, args.output), warning):
        print(line)
    return 0


def _upgraded_text(config: Config, plan: Plan) -> str:
    """Returns the text of a YAML changed as planned, once it is sure that nothing else changed.

    Raises:
        TRGError: If the change cannot be written into the text.
    """
    try:
        text = nest(config.text, plan.nested, 'Student4TRG', 'inner') if plan.nested else config.text
        before = parse_deferred(text)
        text = edit_text(text, plan.tree)
    except EditError as error:
        raise TRGError(
            f'TRG cannot be written into {config.path} without changing other parts of it: {error}; write out the '
            'aliases of that block and try again'
        ) from error
    _, replaced, removed = list_changes(before, parse_deferred(text))
    unexpected = [*removed, *(path for path in replaced if path not in plan.changed)]
    if unexpected:
        raise TRGError(f'nothing is written: {", ".join(unexpected)} of {config.path} would change as well')
    return text


def _check_output(args: argparse.Namespace) -> None:
    if args.output is None:
        raise TRGError('expected the name of the new YAML, got none; give `-o NEW`, or `--diff` to write nothing')
    output = Path(args.output).expanduser()
    if output.is_dir() or not output.parent.is_dir():
        found = 'which is a folder' if output.is_dir() else f'but there is no folder {output.parent}'
        raise TRGError(f'expected `-o` to be a file to write, got {args.output}, {found}')
    if output.exists() and not args.overwrite:
        raise TRGError(f'expected `-o` to be a new file, got {args.output}, which exists; --overwrite replaces it')
