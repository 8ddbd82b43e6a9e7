"""Finds the task of a YAML by what stands in it; another task is one more entry here."""

from __future__ import annotations

from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.tasks.image_classification import ImageClassification
from trg_torchdistill.cli.tasks.object_detection import ObjectDetection
from trg_torchdistill.cli.tasks.semantic_segmentation import SemanticSegmentation
from trg_torchdistill.cli.tasks.task import Task
from trg_torchdistill.cli.tasks.text_classification import TextClassification
from trg_torchdistill.errors import TRGError

CLASSIFICATION = ImageClassification()
OTHERS: tuple[Task, ...] = (TextClassification(), SemanticSegmentation(), ObjectDetection())


def task_of(config: Config) -> Task:
    """Returns the task of a YAML: the one whose traits it has, image classification without any.

    Args:
        config: A YAML read by :func:`~trg_torchdistill.cli.recipe.deferred.load_deferred`.

    Raises:
        TRGError: If it has traits of several tasks.
    """
    found = {task: task.traits(config) for task in OTHERS}
    claims = {task: traits for task, traits in found.items() if traits}
    if len(claims) > 1:
        shown = '; '.join(f'{" and ".join(traits)}, of {task.name}' for task, traits in claims.items())
        raise TRGError(f'expected {config.path} to be for one trainer of torchdistill, got {shown}; remove one of them')
    return next(iter(claims), CLASSIFICATION)


def refuse_other_tasks(config: Config, command: str) -> None:
    """Raises TRGError unless a YAML is for image classification, with the command that trains it.

    Args:
        config: As for :func:`task_of`.
        command: The sub-command that was asked for.
    """
    task = task_of(config)
    if task is not CLASSIFICATION:
        raise TRGError(
            f'expected a YAML for image classification, which is all that `{command}` knows, got one for {task.name}: '
            f'{" and ".join(task.traits(config))}; run its trainer, of a checkout of torchdistill: '
            f'{task.command(config, str(config.path))}'
        )
