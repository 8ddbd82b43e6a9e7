"""The test at the end of a run, and all of a run with ``-test_only``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn
from torch.backends import cudnn
from torchdistill.datasets.util import build_data_loader

from trg_torchdistill.cli.data.reading import count_each_image_once, read
from trg_torchdistill.cli.measure.evaluation import Accuracy, evaluate, group_accuracy, unbalanced_counts
from trg_torchdistill.cli.measure.run_files import Progress, RunFiles
from trg_torchdistill.cli.probe.weights import has_trained_weights, load_start, load_weights, read_checkpoint
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.runtime.placement import Placement
from trg_torchdistill.cli.runtime.progress import Reporter
from trg_torchdistill.errors import TRGError
from trg_torchdistill.files import write_json_lines

TEST_LOADER = ('test', 'test_data_loader')


def load_best(config: Config, student: nn.Module, best: Path, progress: Progress | None, reporter: Reporter) -> str:
    """Loads the best weights into the plain student, strictly, where there are any.

    Args:
        config: A checked YAML.
        student: The plain student, as built where there was no training before.
        best: Their file, ``dst_ckpt``.
        progress: Of the training before, None without one.
        reporter: Is told when other weights than the best ones are tested.

    Returns:
        What is tested: the checkpoint's path, or a description of the weights that the student has already.

    Raises:
        TRGError: If there are no weights to test, or they are not this student's.
    """
    path = config.student_path
    if progress is not None and progress.best_value == 0:
        reporter.say(f'no epoch had a validation top-1 above 0, so {best} was not written; testing the last weights')
        return 'last weights'
    if best.exists():
        wanted = f'{config.where(*path, "dst_ckpt")} to hold weights of `{config.get(*path, "key")}`'
        load_weights(student, read_checkpoint(str(best), wanted), str(best), wanted)
        if progress is not None and progress.best_epoch is not None:
            reporter.say(f'best weights: {best}, of epoch {progress.best_epoch + 1}')
        return str(best)
    if progress is not None:
        reporter.say(f'{best} does not exist; testing the last weights')
        return 'last weights'
    if not has_trained_weights(config, path):
        raise TRGError(
            f'expected {config.where(*path, "dst_ckpt")} to hold the weights to test, got {best}, which does not '
            'exist; train first, or correct the path'
        )
    origin = load_start(config, path, student)
    reporter.say(f'{best} does not exist; testing the weights that the model starts from: {origin}')
    return 'initial weights'


def build_test_loader(config: Config, placement: Placement) -> Any:
    """Returns the test loader of a checked YAML; several processes share its images without repeating any."""
    loader_config = config.mapping(*TEST_LOADER)
    dataset = config.mapping('datasets')[loader_config['dataset_id']]
    return count_each_image_once(build_data_loader(dataset, loader_config, placement.distributed))


def measure_models(
    config: Config,
    teacher: nn.Module | None,
    student: nn.Module,
    weights: str,
    placement: Placement,
    files: RunFiles,
    reporter: Reporter,
) -> None:
    """Tests the student, and the teacher if there is one, prints the accuracies and writes ``test.json``.

    The file holds ``{"test": {top1, top5, per_class, n}, "teacher": {...}, "weights": ...}``; a training set with
    ``class_counts`` of different sizes adds ``groups``, the accuracy of many-, medium- and few-shot classes.
    """
    cudnn.benchmark, cudnn.deterministic = False, True
    datasets = config.mapping('datasets')
    loader = build_test_loader(config, placement)
    counts = unbalanced_counts(datasets[config.get(*config.stage_paths()[0], 'train_data_loader', 'dataset_id')])
    results: dict[str, Any] = {}
    for side, model, path in (('teacher', teacher, config.teacher_path), ('student', student, config.student_path)):
        if model is None or path is None:
            continue
        name, model = f'{side} {config.get(*path, "key")}', model.to(placement.device)
        accuracy = evaluate(model, read(loader, config), placement.device, placement.processes, placement.precision)
        reporter.say(accuracy_line(name, accuracy))
        found = accuracy.as_dict()
        if counts is not None:
            found['groups'] = group_accuracy(accuracy.per_class, counts)
            shown = (f'{group} {"-" if value is None else f"{value:.2f}"}' for group, value in found['groups'].items())
            reporter.say(f'test {name}: classes by training images: {", ".join(shown)}')
        results['test' if side == 'student' else side] = found
    results['weights'] = weights
    if placement.processes.is_first:
        write_json_lines(files.test, [results])


def accuracy_line(name: str, accuracy: Accuracy) -> str:
    """Returns what is printed of the test of a model."""
    return f'test {name}: top-1 {accuracy.top1:.2f}  top-5 {accuracy.top5:.2f}  ({accuracy.num_images} images)'
