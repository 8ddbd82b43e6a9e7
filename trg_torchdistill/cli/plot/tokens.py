"""The tokens that the pictures show, cut by the very losses of a YAML, and a token's neighbours in other images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from trg_torchdistill._checks import nearest
from trg_torchdistill.cli.plot.models import TEACHER, Model, hooked_features
from trg_torchdistill.cli.probe.build import relations_in
from trg_torchdistill.cli.probe.layers import choose_layer
from trg_torchdistill.cli.probe.probe import Record, run_model
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.errors import TRGError
from trg_torchdistill.functional import LocalTerm
from trg_torchdistill.graph import edge_square_distances, gaussian_affinity
from trg_torchdistill.losses import LOSSES, RelationLoss
from trg_torchdistill.registration import relation_loss_classes

Grid = tuple[int, int]
# Image and cell of the neighbours of a token, the nearest first, and the weight of the edge to each.
Neighbors = dict[tuple[int, int], float]


def losses_to_draw(
    config: Config, models: Sequence[Model], image_size: Grid, layers: Mapping[str, str | None], term: str | None
) -> list[RelationLoss]:
    """Returns losses of which the first with a graph, and the first with maps, are those to draw.

    They are the terms of the first stage that has any, or the term named, and where these lack something each of ours,
    with their layers and its own defaults. Without any, or where a layer is named, they are ours with the layers that
    ``trg-torchdistill add`` would choose for images of that height and width.

    Raises:
        TRGError: If there is no such term or layer.
    """
    found = next(filter(None, (relations_in(config, stage) for stage in config.stage_paths())), {})
    if term is not None and term not in found:
        kinds = ' or '.join(f'`{key}`' for key in relation_loss_classes())
        raise TRGError(
            f'expected `--term` to be a {kinds} term of {config.path}, one of '
            f'{list(found)}, got {term!r}{nearest(term, list(found))}'
        )
    chosen = list(found.values()) if term is None else [found[term]]
    if chosen and not any(layers.values()):
        return [*chosen, *(loss(**_ends_of(chosen[0])) for loss in LOSSES)]
    ends = _ends_found(models, image_size, layers)
    return [loss(**ends) for loss in LOSSES]


def _ends_of(loss: RelationLoss) -> dict[str, Any]:
    """The keywords that say which tokens a loss reads."""
    paths = ('student_module_path', 'student_module_io', 'teacher_module_path', 'teacher_module_io')
    tokens = {'student_tokens': asdict(loss.student_tokenizer), 'teacher_tokens': asdict(loss.teacher_tokenizer)}
    return {name: getattr(loss, name) for name in paths} | tokens


def _ends_found(models: Sequence[Model], image_size: Grid, layers: Mapping[str, str | None]) -> dict[str, Any]:
    """The same keywords for the layers named or found; without a teacher the student's is that of both."""
    found: dict[str, Record] = {}
    for model in models:
        if model.side not in found:
            probe = run_model(model.key, model.module, image_size)
            found[model.side] = choose_layer(probe, model.side, layers[model.side])
    ends: dict[str, Any] = {}
    for side in ('student', 'teacher'):
        record = found.get(side, found['student'])
        ends |= {f'{side}_module_path': record.path, f'{side}_module_io': 'output', f'{side}_tokens': record.tokens}
    return ends


def tokens_of(
    loss: RelationLoss, models: Sequence[Model], images: Tensor
) -> tuple[dict[str, Tensor], Grid, Tensor | None]:
    """Returns the tokens of a batch [B, C, H, W] as a loss sees them, over the common grid of teacher and student.

    Without a teacher each student stands for it as well.

    Returns:
        By label of the model [B, N, D] in float32 on the CPU, the cells [h, w] of the grid, N = h*w, and which of them
        [B, N] count, None for all.

    Raises:
        TRGError: If a model lacks the module that the loss reads; if its feature cannot be cut into tokens.
    """
    values: dict[str, Tensor] = {}
    of_teacher = None
    mask = loss.token_mask
    of_mask = {side: [mask.path] if mask and mask.path and mask.side == side else [] for side in ('student', 'teacher')}
    for model in models:
        if model.side == 'teacher':
            of_teacher = hooked_features(model, [loss.teacher_module_path, *of_mask['teacher']], images)
            continue
        paths = [loss.student_module_path, *([] if of_teacher else [loss.teacher_module_path]), *of_mask['student']]
        features = hooked_features(model, paths, images)
        tokens = loss.tokens(features, of_teacher or features)
        if of_teacher:
            values[TEACHER] = tokens.teacher.float().cpu()
        values[model.label] = tokens.student.float().cpu()
    return values, tokens.grid, None if tokens.mask is None else tokens.mask.cpu()


def choose_cell(grid: Grid, cell: Sequence[int] | None, where: str, counts: Tensor | None = None) -> Grid:
    """Returns row and column of the chosen cell, the one in the middle by default.

    Args:
        grid: Cells [h, w] of an image.
        cell: Row and column.
        where: What has the tokens.
        counts: Which of the cells [h*w] count, None for all.

    Raises:
        TRGError: If the grid has a single cell, or not this one; if it is padding.
    """
    height, width = grid
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
    if counts is not None and not counts[row * width + column]:
        raise TRGError(
            f'expected `--cell` to be a token of {where} that counts, got {row} {column}, which is padding; choose '
            'another, or another `--image`'
        )
    return row, column


def graph_to_draw(graph: LocalTerm, num_neighbors: int | None = None) -> LocalTerm:
    """Returns a loss's graph, with this number of neighbours if given; of the complete graph, each model's nearest."""
    if graph.num_neighbors is None:
        num_neighbors = num_neighbors or LocalTerm.num_neighbors
        return LocalTerm(num_neighbors, graph.sigma, normalize_tokens=graph.normalize_tokens)
    return replace(graph, num_neighbors=num_neighbors or graph.num_neighbors)


def neighbors_in_other_images(
    tokens: Tensor, teacher: Tensor, image: int, cell: int, graph: LocalTerm, mask: Tensor | None = None
) -> Neighbors:
    """Returns the edges of one token to the tokens of the other images, in the graph that a loss makes of a model.

    Args:
        tokens: Tokens [B, N, D] of the model.
        teacher: Those of the teacher, or of the model where there is none.
        image: Image of the token.
        cell: Its cell.
        graph: Says which edges there are, and what they weigh.
        mask: Which tokens [B, N] count, None for all.
    """
    others = _counted(tokens, mask).clone()
    others[image] = False
    ends = others.nonzero().tolist()
    own, teachers = (graph.placed(torch.cat([each[image, cell][None], each[others]])) for each in (tokens, teacher))
    pairs = graph.pairs(own, teachers, range(1))
    squares = edge_square_distances(own, pairs.columns, rows=range(1))[0]
    affinities = gaussian_affinity(squares, graph.sigma).tolist()
    is_edge, found = pairs.of('student')[0], {}
    for place in squares.argsort(stable=True).tolist():
        if is_edge[place]:
            other, neighbor = ends[int(pairs.columns[0, place]) - 1]
            found[other, neighbor] = affinities[place]
    return found


def _counted(tokens: Tensor, mask: Tensor | None) -> Tensor:
    return torch.ones(tokens.shape[:2], dtype=torch.bool) if mask is None else mask


def shares_of_edges(tokens: Mapping[str, Tensor], graph: LocalTerm, mask: Tensor | None = None) -> dict[str, float]:
    """Returns the share of the teacher's neighbours that are each model's own, over all of its tokens [B, N, D].

    With a mask [B, N], over those that count.
    """
    own_neighbors = LocalTerm(graph.num_neighbors, graph.sigma, normalize_tokens=graph.normalize_tokens)
    ends = _counted(tokens[TEACHER], mask).nonzero().tolist()
    edges = {
        label: {
            (image, cell, *neighbor)
            for image, cell in ends
            for neighbor in neighbors_in_other_images(each, each, image, cell, own_neighbors, mask)
        }
        for label, each in tokens.items()
    }
    return {label: len(own & edges[TEACHER]) / len(edges[TEACHER]) for label, own in edges.items()}
