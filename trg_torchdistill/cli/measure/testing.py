"""The test at the end of a run, and all of a run with ``-test_only``."""

from __future__ import annotations

import json
from functools import partial
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
from trg_torchdistill.files import replacing

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
    if progress is not None and progress.best_value == 0:
        reporter.say(f'no epoch had a validation top-1 above 0, so {best} was not written; testing the last weights')
        return 'last weights'
    if not best.exists():
        return _other_weights(config, student, best, progress, reporter)
    path = config.student_path
    wanted = f'{config.where(*path, "dst_ckpt")} to hold weights of `{config.get(*path, "key")}`'
    load_weights(student, read_checkpoint(str(best), wanted), str(best), wanted)
    if progress is not None and progress.best_epoch is not None:
        reporter.say(f'best weights: {best}, of epoch {progress.best_epoch + 1}')
    return str(best)


def _other_weights(
    config: Config, student: nn.Module, best: Path, progress: Progress | None, reporter: Reporter
) -> str:
    if progress is not None:
        reporter.say(f'{best} does not exist; testing the last weights')
        return 'last weights'
    if not has_trained_weights(config, config.student_path):
        raise TRGError(
            f'expected {config.where(*config.student_path, "dst_ckpt")} to hold the weights to test, got {best}, '
            'which does not exist; train first, or correct the path'
        )
    origin = load_start(config, config.student_path, student)
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
    test = partial(_test, config, loader, placement, counts, reporter)
    results: dict[str, Any] = {}
    if teacher is not None and config.teacher_path is not None:
        name = f'teacher {config.get(*config.teacher_path, "key")}'
        results['teacher'] = test(teacher, name)
    name = f'student {config.get(*config.student_path, "key")}'
    results['test'] = test(student, name)
    results['weights'] = weights
    if not placement.processes.is_first:
        return
    with replacing(files.test) as stream:
        stream.write(f'{json.dumps(results)}\n'.encode())


def _test(
    config: Config,
    loader: Any,
    placement: Placement,
    counts: list[int] | None,
    reporter: Reporter,
    model: nn.Module,
    name: str,
) -> dict[str, Any]:
    model = model.to(placement.device)
    accuracy = evaluate(model, read(loader, config), placement.device, placement.processes, placement.precision)
    reporter.say(accuracy_line(name, accuracy))
    if counts is None:
        return accuracy.as_dict()
    groups = group_accuracy(accuracy.per_class, counts)
    shown = (f'{group} {"-" if value is None else format(value, ".2f")}' for group, value in groups.items())
    reporter.say(f'test {name}: classes by training images: {", ".join(shown)}')
    return {**accuracy.as_dict(), 'groups': groups}


def accuracy_line(name: str, accuracy: Accuracy) -> str:
    """Returns what is printed of the test of a model."""
    return f'test {name}: top-1 {accuracy.top1:.2f}  top-5 {accuracy.top5:.2f}  ({accuracy.num_images} images)'
