"""``trg-torchdistill eval CONFIG [CKPT]``: what a trained student gets right, class by class, and like its teacher."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import nn
from torch.backends import cudnn

from trg_torchdistill.cli.data.classes import class_counts, class_names
from trg_torchdistill.cli.data.preflight import look_at_data
from trg_torchdistill.cli.data.reading import read
from trg_torchdistill.cli.eval.report import Evaluation, as_json, as_text
from trg_torchdistill.cli.measure.evaluation import CONVENTIONS, class_groups, predict, unbalanced_counts
from trg_torchdistill.cli.measure.run_files import refuse_named_file
from trg_torchdistill.cli.measure.testing import TEST_LOADER, accuracy_line, build_test_loader, load_best
from trg_torchdistill.cli.probe.arguments import positive
from trg_torchdistill.cli.probe.build import build_model, build_with_weights
from trg_torchdistill.cli.probe.weights import has_trained_weights, load_weights, missing_file, read_checkpoint
from trg_torchdistill.cli.recipe.config import Config, import_packages, load_config
from trg_torchdistill.cli.recipe.deferred import load_deferred
from trg_torchdistill.cli.recipe.keys import check_for_test
from trg_torchdistill.cli.runtime.logs import logging_to
from trg_torchdistill.cli.runtime.placement import Placement, choose_placement
from trg_torchdistill.cli.runtime.precision import DTYPES, choose_precision
from trg_torchdistill.cli.runtime.processes import joined
from trg_torchdistill.cli.runtime.progress import Reporter, choose_reporter
from trg_torchdistill.cli.runtime.random_state import seed_equally
from trg_torchdistill.cli.tasks.recognised import refuse_other_tasks
from trg_torchdistill.errors import TRGError
from trg_torchdistill.files import identity, is_address, write_json_lines

ROWS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the sub-command; those that ``train`` has too mean the same."""
    parser.add_argument('config', metavar='CONFIG', help='YAML file with the models and the test images')
    parser.add_argument(
        'checkpoint',
        metavar='CKPT',
        nargs='?',
        help="weights of the student, right after CONFIG: a trainer's checkpoint, a state dict, or last.pt of a run; "
        'default: its dst_ckpt',
    )
    parser.add_argument('--device', default='auto', help='auto (a GPU where there is one), cpu, cuda, cuda:1, ...')
    parser.add_argument('--amp', choices=sorted(DTYPES), help='mixed precision (default: float32)')
    parser.add_argument('--json', metavar='FILE', help='file that gets everything, of all classes')
    parser.add_argument(
        '--groups',
        choices=CONVENTIONS,
        help='many-, medium- and few-shot classes: thirds of the classes by their training images, or more than 100, '
        '20 to 100 and fewer than 20 of them, as for ImageNet-LT; default: for a training set with unequal '
        '`class_counts`, thirds, and shots too where none is empty',
    )
    parser.add_argument(
        '--rows',
        type=positive,
        default=ROWS,
        metavar='N',
        help=f'worst and best classes, and confusions shown ({ROWS})',
    )
    parser.add_argument('--seed', type=int, help='that of the training, for a YAML that splits its data at random')
    parser.add_argument('-student_only', action='store_true', help='leave out the teacher')


def run(args: argparse.Namespace) -> int:
    """Measures the student, and how far it agrees with the teacher of the YAML, prints it, and returns 0.

    Raises:
        TRGError: For a mistake in the YAML or the command line, or weights that are not this student's.
    """
    with joined(args.device) as processes, logging_to(None, processes.rank):
        reporter = choose_reporter(processes.is_first)
        placement = choose_placement(args.device, processes)
        seed_equally(args.seed, processes)
        with processes.first_of_node_first():
            config = _checked_config(args.config)
            refuse_named_file('--json', args.json, args.config, args.checkpoint)
        placement = replace(placement, precision=choose_precision(args.amp, placement.device, config))
        train_counts, conventions = _training_images(config, args.groups)
        models, weights = _load_models(config, args, placement, reporter)
        cudnn.benchmark, cudnn.deterministic = False, True
        sides = dict(zip(('student', 'teacher'), models, strict=False))
        look_at_data(config, [TEST_LOADER], sides, placement).tell(reporter)
        loader = build_test_loader(config, placement)
        predictions = predict(models, read(loader, config), placement.device, processes, placement.precision)
        num_classes = max(*predictions.num_classes, int(predictions.labels.max()) + 1)
        names = class_names(config.mapping('datasets')[config.get(*TEST_LOADER, 'dataset_id')], num_classes)
        if processes.is_first:
            _show(Evaluation(args.config, weights, predictions, names, train_counts, conventions), config, args)
    return 0


def _checked_config(path: str) -> Config:
    folder = Path(path).expanduser()
    if folder.is_dir():
        raise TRGError(
            f'expected CONFIG to be a YAML file, got the folder {path}; name the YAML of that run, and after it '
            f'{folder / "last.pt"}, or nothing for its best weights'
        )
    refuse_other_tasks(load_deferred(path), 'eval')
    config = load_config(path)
    import_packages(config)
    check_for_test(config)
    return config


def _training_images(config: Config, choice: str | None) -> tuple[list[int] | None, tuple[str, ...]]:
    """Returns the number of training images of each class, if it is known, and the groups of classes to show."""
    path = (*config.stage_paths()[0], 'train_data_loader', 'dataset_id')
    dataset = config.mapping('datasets').get(config.get(*path))
    counts = class_counts(dataset)
    if choice is not None:
        if counts is None or len(set(counts)) < 2:
            found = 'a data set that does not tell' if counts is None else f'{counts[0]} of each class'
            raise TRGError(
                f'expected {config.where(*path)} to be training images of classes that differ in size, for '
                f'`--groups {choice}`, got {found}; leave `--groups` out'
            )
        return counts, (choice,)
    unbalanced = unbalanced_counts(dataset)
    if unbalanced is None:
        return counts, ()
    return counts, CONVENTIONS if all(class_groups(unbalanced, 'shots').values()) else CONVENTIONS[:1]


def _load_models(
    config: Config, args: argparse.Namespace, placement: Placement, reporter: Reporter
) -> tuple[list[nn.Module], str]:
    """Returns the student and, if it is asked, the teacher, on the device, and what the student's weights are."""
    processes = placement.processes
    teacher = None if args.student_only else config.teacher_path
    asks = teacher is not None and processes.from_first(_has_its_weights(config, teacher, reporter))
    with processes.first_of_node_first():
        models = [build_model(config, config.student_path, placement.distributed)]
        if teacher is not None and asks:
            model, origin = build_with_weights(config, teacher, placement.distributed)
            models.append(model)
            reporter.say(f'weights of the teacher: {origin}')
            student = args.checkpoint or config.get(*config.student_path, 'dst_ckpt')
            if student is not None and identity(student) == identity(origin):
                reporter.say(f'WARNING: {student} holds the weights of both: a model is compared with itself')
    weights = _load_student(config, models[0], args.checkpoint, reporter) if processes.is_first else ''
    weights = processes.from_first(weights)
    models = [model.to(placement.device) for model in models]
    processes.copy_from_first(models)
    return models, weights


def _has_its_weights(config: Config, path: tuple[str, ...], reporter: Reporter) -> bool:
    """Whether the teacher is worth asking; a model may also bring its weights in ways that a YAML does not show."""
    missing = missing_file(config, path)
    if missing is not None:
        reporter.say(f'no teacher: {config.where(*path, "src_ckpt")} is {missing}, which does not exist')
        return False
    if not has_trained_weights(config, path):
        reporter.say(
            f'WARNING: {config.where(*path)} names no weights; the teacher answers with those it is built with'
        )
    return True


def _load_student(config: Config, student: nn.Module, source: str | None, reporter: Reporter) -> str:
    """Loads the weights to test into the plain student, strictly, and returns what they are."""
    path = config.student_path
    if source is None:
        best = config.get(*path, 'dst_ckpt')
        if not isinstance(best, str):
            raise TRGError(
                f'expected a file of weights as CKPT, or as `dst_ckpt:` of {config.where(*path)}, got neither; '
                'write it after CONFIG'
            )
        return load_best(config, student, Path(best), None, reporter)
    wanted = f'CKPT to hold weights of `{config.get(*path, "key")}`, {config.where(*path)}'
    file = Path(source).expanduser()
    if not is_address(source):
        if not file.is_file():
            found = 'a folder; name a file in it, such as last.pt' if file.is_dir() else 'which does not exist'
            raise TRGError(f'expected {wanted}, got {source}, {found}')
        source = str(file)
    checkpoint = read_checkpoint(source, wanted)
    modules = checkpoint.get('modules')  # those of a ``last.pt``
    of_run = modules.get('student') if isinstance(modules, Mapping) else None
    load_weights(student, of_run if isinstance(of_run, Mapping) else checkpoint, source, wanted)
    return source


def _show(found: Evaluation, config: Config, args: argparse.Namespace) -> None:
    paths = {'student': config.student_path, 'teacher': config.teacher_path}
    for side, accuracy in found.accuracies.items():
        print(accuracy_line(f'{side} {config.get(*(paths[side] or ()), "key")}', accuracy))
    print(f'weights of the student: {found.weights}\n')
    for line in as_text(found, args.rows):
        print(line)
    if args.json is not None:
        write_json_lines(Path(args.json).expanduser(), [as_json(found)])
