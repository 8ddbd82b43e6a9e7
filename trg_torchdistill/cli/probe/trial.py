"""Probes the models of a YAML with batches of a size that all take, and says what hangs on one that is a guess."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from trg_torchdistill.cli.probe.batch import Batch
from trg_torchdistill.cli.probe.image_size import ImageSize
from trg_torchdistill.cli.probe.probe import ModelProbe, probe_model
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.runtime.random_state import preserved_random_state
from trg_torchdistill.errors import TRGError

OTHER_SIZES = (32, 64, 224)

Layers = Sequence[tuple[ModelProbe, Sequence[str]]]


class Size(Protocol):
    """A size of the items of a batch: :class:`~trg_torchdistill.cli.probe.image_size.ImageSize`, or one of texts."""

    @property
    def source(self) -> str:
        """Where it was found, for the user."""

    @property
    def is_guess(self) -> bool:
        """Whether the YAML does not tell it."""


class Probing(Protocol):
    """What a task knows of its models and batches."""

    def build(self, config: Config, path: tuple[str, ...], num_classes: int | None) -> nn.Module:
        """Builds the model described at ``path`` with random weights, and without a download."""

    def sizes(self, config: Config, stage: tuple[str, ...], models: Sequence[nn.Module]) -> Sequence[Size]:
        """Returns the sizes to try, the likeliest first."""

    def batch(self, model: nn.Module, size: Size) -> Batch:
        """Returns a random batch of items of a size."""


@dataclass(frozen=True)
class Trial:
    """The models of a YAML and what their modules did with a batch.

    Attributes:
        probes: By side, ``teacher`` and ``student``, or ``student`` alone.
        size: Size of the items.
        refused: Sizes that were tried before, with the reason why they did not do.
    """

    probes: dict[str, ModelProbe]
    size: Size
    refused: tuple[str, ...]


def try_sizes(
    task: Probing,
    config: Config,
    stage: tuple[str, ...],
    size: ImageSize | None = None,
    num_classes: int | None = None,
) -> Trial:
    """Builds the models without weights and sends a random batch through each.

    Args:
        task: The task of the YAML.
        config: A YAML read by :func:`~trg_torchdistill.cli.recipe.deferred.load_deferred`, its dependencies imported.
        stage: Path of the training stage, whose data set tells the size of the images.
        size: Size of the images, None to find it.
        num_classes: Overrides ``num_classes`` of the models.

    Raises:
        TRGError: If a model cannot be built, or takes none of the sizes.
    """
    found = (('teacher', config.teacher_path), ('student', config.student_path))
    paths = {side: path for side, path in found if path is not None}
    models = {side: task.build(config, path, num_classes) for side, path in paths.items()}
    refused: list[str] = []
    for candidate in task.sizes(config, stage, list(models.values())[::-1]) if size is None else [size]:
        try:
            # The student first: it is the smaller one.
            probes = {
                side: _probe(task, config.get(*paths[side], 'key'), models[side], candidate)
                for side in reversed(models)
            }
        except TRGError as error:
            refused.append(f'{candidate}: {error}')
            continue
        return Trial({side: probes[side] for side in models}, candidate, tuple(refused))
    raise TRGError(
        f'expected {" and ".join(models)} to take images of one size; give the right one with `--input-size`. Tried '
        f'{"; ".join(refused)}'
    )


def _probe(task: Probing, key: object, model: nn.Module, size: Size) -> ModelProbe:
    with preserved_random_state():
        return probe_model(str(key), model, task.batch(model, size))


def guess_warning(task: Probing, size: Size, layers: Layers) -> str | None:
    """Returns a warning about a guessed size, None where nothing hangs on it.

    Args:
        task: The task of the YAML.
        size: Size of the images.
        layers: Each model with the module paths whose outputs become tokens.
    """
    if not (isinstance(size, ImageSize) and size.is_guess):
        return None
    here, changed = _smallest_grid(task, layers), []
    for side in OTHER_SIZES:
        grid = here if side == size.height == size.width else _smallest_grid(task, layers, side)
        if grid is not None and grid != here:
            changed.append(f'{_shown(grid)} at {side} x {side}')
    if here is None or not changed:
        return None
    return (
        f'the images are taken to be {size}, a guess: the YAML does not tell their size. The smallest of the hooked '
        f'maps has {_shown(here)} an image then, {" and ".join(changed)}, and with one token a relation between the '
        'tokens of an image is 0. If your images have another size, give it with `--input-size`'
    )


def _smallest_grid(task: Probing, layers: Layers, side: int | None = None) -> tuple[int, int] | None:
    """Returns the fewest cells of a layer, for images of another size if one is given; None if a model refuses it."""
    try:
        if side is not None:
            square = ImageSize(side, side, '')
            layers = [(_probe(task, probe.key, probe.model, square), paths) for probe, paths in layers]
    except TRGError:
        return None
    records = [probe.record(path) for probe, paths in layers for path in paths]
    grids = [record.grid for record in records if record is not None and record.grid is not None]
    return min(grids, key=lambda grid: grid[0] * grid[1], default=None)


def _shown(grid: tuple[int, int]) -> str:
    return '1 token' if grid == (1, 1) else f'{grid[0]}x{grid[1]} tokens'
