"""The tokens that the pictures show, cut by the very losses of a YAML: a cell's neighbours and its context."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from trg_torchdistill._checks import nearest
from trg_torchdistill.cli.plot.models import Model, hooked_features
from trg_torchdistill.cli.probe.build import relations_in
from trg_torchdistill.cli.probe.layers import choose_layer
from trg_torchdistill.cli.probe.probe import Record, run_model
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.errors import TRGError
from trg_torchdistill.functional import LocalTerm
from trg_torchdistill.graph import gaussian_affinity
from trg_torchdistill.losses import LOSSES, RelationLoss
from trg_torchdistill.losses.maps import ImageMaps
from trg_torchdistill.registration import relation_loss_classes
from trg_torchdistill.tokens import flatten_grid, pool_to_common_grid

T = TypeVar('T')


@dataclass(frozen=True)
class Tokens:
    """The tokens of each model over the common grid of a loss.

    Attributes:
        values: By label of the model, [B, N, D] in float32 on the CPU.
        grid: Cells [h, w].
    """

    values: dict[str, Tensor]
    grid: tuple[int, int]


@dataclass(frozen=True)
class Neighbor:
    """One end of an edge of the token graph.

    Attributes:
        image: Which image.
        row: Row of its cell.
        column: Column of its cell.
        affinity: Weight of the edge.
    """

    image: int
    row: int
    column: int
    affinity: float

    @property
    def place(self) -> tuple[int, int, int]:
        """Image, row and column."""
        return self.image, self.row, self.column


def choose_losses(
    config: Config,
    models: Sequence[Model],
    image_size: tuple[int, int],
    layers: Mapping[str, str | None],
    term: str | None,
) -> tuple[tuple[RelationLoss, LocalTerm], tuple[RelationLoss, ImageMaps]]:
    """Returns the loss whose graph is drawn, with its graph, and the loss whose maps are, with its maps.

    They are the first terms of the YAML that have such, or the term named. Where the YAML lacks one, the first of our
    losses that has it stands in, with the layers of the other one and its own defaults. Without any, or where a layer
    is named, both get the layers that ``trg-torchdistill add`` would choose.

    Args:
        config: A YAML of :func:`~trg_torchdistill.cli.plot.models.read_config`.
        models: Its models.
        image_size: Height and width of the images.
        layers: Module paths of ``student`` and ``teacher``, None for those not named.
        term: Name of a TRG term in the YAML, None for the first ones.

    Raises:
        TRGError: If there is no such term or layer.
    """
    found = _losses_of(config)
    if term is not None and term not in found:
        kinds = ' or '.join(f'`{key}`' for key in relation_loss_classes())
        raise TRGError(
            f'expected `--term` to be a {kinds} term of {config.path}, one of '
            f'{list(found)}, got {term!r}{nearest(term, list(found))}'
        )
    chosen = list(found.values()) if term is None else [found[term]]
    if not chosen or any(layers.values()):
        chosen, ends = [], _found_layers(models, image_size, layers)
    else:
        ends = _ends_of(chosen[0])
    losses = [*chosen, *(loss(**ends) for loss in LOSSES)]
    return _first(losses, lambda loss: loss.graph), _first(losses, lambda loss: loss.maps)


def _first(losses: Iterable[RelationLoss], part: Callable[[RelationLoss], T | None]) -> tuple[RelationLoss, T]:
    """Returns the first loss that has a part, and the part."""
    return next((loss, found) for loss in losses if (found := part(loss)) is not None)


def _losses_of(config: Config) -> dict[str, RelationLoss]:
    """Returns the relation losses in the YAML by their names; those of the first stage that has any."""
    return next(filter(None, (relations_in(config, stage) for stage in config.stage_paths())), {})


def _ends_of(loss: RelationLoss) -> dict[str, Any]:
    """The keywords that say which tokens a loss reads."""
    return {
        'student_module_path': loss.student_module_path,
        'student_module_io': loss.student_module_io,
        'teacher_module_path': loss.teacher_module_path,
        'teacher_module_io': loss.teacher_module_io,
        'student_tokens': asdict(loss.student_tokenizer),
        'teacher_tokens': asdict(loss.teacher_tokenizer),
    }


def _found_layers(
    models: Sequence[Model], image_size: tuple[int, int], layers: Mapping[str, str | None]
) -> dict[str, Any]:
    student = next(model for model in models if not model.is_teacher)
    teacher = next((model for model in models if model.is_teacher), None)
    records = {'student': _layer(student, 'student', image_size, layers['student'])}
    records['teacher'] = (
        records['student'] if teacher is None else _layer(teacher, 'teacher', image_size, layers['teacher'])
    )
    ends: dict[str, Any] = {}
    for side, record in records.items():
        ends |= {f'{side}_module_path': record.path, f'{side}_module_io': 'output', f'{side}_tokens': record.tokens}
    return ends


def _layer(model: Model, side: str, image_size: tuple[int, int], path: str | None) -> Record:
    device = next(model.module.parameters()).device
    try:
        return choose_layer(run_model(model.key, model.module.cpu(), image_size), side, path)
    finally:
        model.module.to(device)


@torch.no_grad()
def tokens_of(loss: RelationLoss, models: Sequence[Model], images: Tensor) -> Tokens:
    """Returns the tokens of a batch as a loss sees them: the teacher's and the student's over their common grid.

    Without a teacher each student stands for it as well.

    Args:
        loss: The loss.
        models: The models, in eval mode.
        images: Batch [B, C, H, W].

    Raises:
        TRGError: If a model lacks the module that the loss reads; if its feature cannot be cut into tokens.
    """
    student_end = (loss.student_module_path, loss.student_module_io)
    teacher_end = (loss.teacher_module_path, loss.teacher_module_io)
    teacher = next((model for model in models if model.is_teacher), None)
    teacher_features = None if teacher is None else hooked_features(teacher, [teacher_end], images)
    values: dict[str, Tensor] = {}
    grid = (1, 1)
    for model in models:
        if model.is_teacher:
            continue
        ends = [student_end] if teacher is not None else [student_end, teacher_end]
        features = hooked_features(model, ends, images)
        grids = pool_to_common_grid(*loss.token_grids(features, teacher_features or features))
        grid = (grids[0].shape[2], grids[0].shape[3])
        if teacher is not None:
            values.setdefault(teacher.label, flatten_grid(grids[1]).float().cpu())
        values[model.label] = flatten_grid(grids[0]).float().cpu()
    return Tokens(values, grid)


def cell_index(tokens: Tokens, cell: Sequence[int] | None, where: str) -> tuple[int, int]:
    """Returns row and column of the chosen cell, the one in the middle by default.

    Raises:
        TRGError: If the grid has a single cell, or not this one.
    """
    height, width = tokens.grid
    if height * width == 1:
        raise TRGError(
            f'expected {where} to have more than one token an image, got 1; name a layer before pooling with '
            '`--student-layer` and `--teacher-layer`'
        )
    row, column = (height // 2, width // 2) if cell is None else cell
    if not (0 <= row < height and 0 <= column < width):
        raise TRGError(
            f'expected `--cell` to be a row from 0 to {height - 1} and a column from 0 to {width - 1} of the '
            f'{height} x {width} tokens of {where}, got {row} {column}'
        )
    return row, column


def neighbors_in_other_images(
    tokens: Tensor, grid: tuple[int, int], image: int, cell: tuple[int, int], graph: LocalTerm
) -> list[Neighbor]:
    """Returns the nearest neighbours of one token among the tokens of the other images, the nearest first.

    Args:
        tokens: Tokens [B, N, D] of one model.
        grid: Cells [h, w], N = h*w.
        image: Image of the token.
        cell: Row and column of the token.
        graph: Says how many neighbours there are, how far they are, and what their edges weigh.
    """
    height, width = grid
    others = [other for other in range(len(tokens)) if other != image]
    chosen = tokens[image, cell[0] * width + cell[1]]
    squares, neighbors = graph.neighbors(torch.cat([chosen[None], tokens[others].flatten(0, 1)]), range(1))
    affinities = gaussian_affinity(squares, graph.sigma)[0].tolist()
    found = []
    for place in squares[0].argsort(stable=True).tolist():
        token = int(neighbors[0, place]) - 1
        other, index = divmod(token, height * width)
        found.append(Neighbor(others[other], *divmod(index, width), affinities[place]))
    return found


def edges_to_other_images(
    tokens: Tensor, grid: tuple[int, int], graph: LocalTerm
) -> set[tuple[int, int, tuple[int, int, int]]]:
    """Returns the edges of every token as image, cell and place of the neighbour; arguments as above."""
    num_images, num_cells, _ = tokens.shape
    return {
        (image, cell, neighbor.place)
        for image in range(num_images)
        for cell in range(num_cells)
        for neighbor in neighbors_in_other_images(tokens, grid, image, (cell // grid[1], cell % grid[1]), graph)
    }
