"""What TRG's terms make of one batch: the size of the graph, its memory, and whether it has anything to say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trg_torchdistill._blocks import GPU_BLOCK_BYTES
from trg_torchdistill.cli.probe.probe import ModelProbe
from trg_torchdistill.cli.recipe.config import Config, UnknownHereError
from trg_torchdistill.graph import edge_square_distances, gaussian_affinity, nearest_neighbors
from trg_torchdistill.losses import RelationLoss, TokenContextualLoss, TRGLoss
from trg_torchdistill.tokens import draw_cells, flatten_grid, normalize, pool_to_common_grid, take_cells

SIDES = ('student', 'teacher')
MAX_MAP_BYTES = 2**32
MEASURED_ENTRIES = 2**24
# Below it, the softmax over a row of the graph is that of no edges at all.
SILENT_AFFINITY = 1e-3
SATURATED_ROW = 0.99


@dataclass(frozen=True)
class GraphFacts:
    """The token graph of a ``TRGLoss`` on one batch, and on one of the YAML's size.

    Attributes:
        term: Name of the term in the YAML.
        cells: Tokens N of an image over the common grid.
        tokens_per_image: Tokens n drawn from an image.
        num_tokens: Tokens M of the graph.
        num_tokens_yaml: M with the YAML's batch size.
        num_neighbors: k, not clipped.
        graph_bytes: Memory of the graph, see :func:`graph_bytes`.
        graph_bytes_yaml: The same with the YAML's batch size.
        affinity: By side, the mean weight of an edge.
        fitting_sigma: Half the mean squared distance of the student's neighbours: edges then weigh about 1/e.
        temperature: tau, None without a global term.
    """

    term: str
    cells: int
    tokens_per_image: int
    num_tokens: int
    num_tokens_yaml: int
    num_neighbors: int
    graph_bytes: int
    graph_bytes_yaml: int
    affinity: dict[str, float]
    fitting_sigma: float
    temperature: float | None


@dataclass(frozen=True)
class ContextFacts:
    """The context maps of a ``TokenContextualLoss`` on one batch.

    Attributes:
        term: Name of the term in the YAML.
        cells: Tokens N of an image over the common grid.
        map_bytes: Memory of both models' maps, see :func:`map_bytes`.
        map_bytes_yaml: The same with the YAML's batch size.
        saturated: By side, the share of rows whose largest entry is above 0.99: the softmax has no gradient there.
    """

    term: str
    cells: int
    map_bytes: int
    map_bytes_yaml: int
    saturated: dict[str, float]


def graph_bytes(num_tokens: int, num_neighbors: int, widths: tuple[int, int]) -> int:
    """Returns the memory of a token graph in bytes, in float32, computed and not measured.

    Edges, M * k * 90 bytes: indices (8) and weights (4) of both models, one's indices in order and the places of the
    other's among them (4 * 8), both models' logits and weights over all these edges (2 * 2 * 2 * 4), a mask (2).
    The differences T_i - T_j of one block of rows, min(M * k * D * 4, 64 MiB), and the scores of the neighbour search,
    min(M * M * 4, 64 MiB), both as on a GPU: on a CPU the blocks are smaller. The tokens themselves, the projection and
    the global term's block of logits, as large as the scores, are not in it.
    """
    k = min(num_neighbors, max(num_tokens - 1, 0))
    edges = num_tokens * k * (2 * (8 + 4) + 4 * 8 + 2 * 2 * 2 * 4 + 2)
    differences, scores = num_tokens * k * max(widths) * 4, num_tokens**2 * 4
    return edges + min(differences, GPU_BLOCK_BYTES) + min(scores, GPU_BLOCK_BYTES)


def map_bytes(batch_size: int, cells: int) -> int:
    """Returns the memory of both models' context maps in bytes: of all images, or of those in one block of 64 MiB."""
    return 2 * min(batch_size * cells**2 * 4, max(GPU_BLOCK_BYTES, cells**2 * 4))


def check_maps(config: Config, stage: tuple[str, ...], probes: Mapping[str, ModelProbe], batch_size: int) -> int:
    """Returns the largest batch size, at most ``batch_size``, with which the context maps of a stage are quick.

    Computed from the shapes alone, before anything runs: an image has about eight maps of N x N numbers, with the
    softmax, the error and the gradients of both models; a batch here has at most 1 GiB of them.

    Raises:
        UnknownHereError: If the maps of one image need more than 4 GiB, so that it is better not to try.
    """
    for name, term in (config.get(*stage, 'criterion', 'kwargs', 'sub_terms') or {}).items():
        criterion = term['criterion']
        if not isinstance(criterion, dict) or criterion['key'] != 'TokenContextualLoss':
            continue
        cells = min((_cells(criterion['kwargs'], side, probe) for side, probe in probes.items()), default=0)
        needed = 8 * 4 * cells**2
        if needed > MAX_MAP_BYTES:
            where = config.where(*stage, 'criterion', 'kwargs', 'sub_terms', name, 'criterion', 'kwargs')
            raise UnknownHereError(
                f'not tried: the context map of `{name}` has {cells} x {cells} numbers an image, about '
                f'{needed / 2**30:.0f} GiB each; choose later layers, or a larger `patch_size:`, in {where}. If the '
                'images are smaller than these, give `--input-size`'
            )
        batch_size = min(batch_size, max(1, 2**30 // max(needed, 1)))
    return batch_size


def _cells(kwargs: Mapping[str, Any], side: str, probe: ModelProbe) -> int:
    """Returns the tokens of an image at the layer that a loss reads, 0 if that is not known."""
    path = str(kwargs.get(f'{side}_module_path'))
    record = probe.record(path) or probe.record(path.removeprefix('student_model.'))
    options = kwargs.get(f'{side}_tokens')
    patch = options.get('patch_size', 1) if isinstance(options, dict) else 1
    return 0 if record is None or not isinstance(patch, int) else record.cells // max(patch, 1) ** 2


@torch.no_grad()
def graph_facts(term: str, loss: TRGLoss, io_dicts: tuple[Any, Any], batch_size: int) -> GraphFacts:
    """Measures the graph of a loss on the hooked features of one step.

    Args:
        term: Name of the term.
        loss: The loss.
        io_dicts: Hooked features of the student and of the teacher.
        batch_size: The YAML's.
    """
    tokens = _tokens(loss, io_dicts)
    num_images, cells, _ = tokens['student'].shape
    drawn = loss.tokens_an_image(num_images, cells)
    chosen = draw_cells(num_images, cells, drawn, torch.Generator().manual_seed(0))
    affinity, distance = {}, 0.0
    for side in SIDES:
        rows = take_cells(tokens[side], chosen).float()
        rows = normalize(rows) if loss.local.normalize_tokens else rows
        if len(rows) > 1:
            squares = edge_square_distances(rows, nearest_neighbors(rows, loss.local.num_neighbors))
            affinity[side] = gaussian_affinity(squares, loss.local.sigma).mean().item()
            distance = squares.mean().item() if side == 'student' else distance
    num_tokens, num_tokens_yaml = num_images * drawn, batch_size * loss.tokens_an_image(batch_size, cells)
    widths = (tokens['student'].shape[2], tokens['teacher'].shape[2])
    return GraphFacts(
        term,
        cells,
        drawn,
        num_tokens,
        num_tokens_yaml,
        loss.local.num_neighbors,
        graph_bytes(num_tokens, loss.local.num_neighbors, widths),
        graph_bytes(num_tokens_yaml, loss.local.num_neighbors, widths),
        affinity,
        distance / 2,
        loss.current_temperature,
    )


@torch.no_grad()
def context_facts(term: str, loss: TokenContextualLoss, io_dicts: tuple[Any, Any], batch_size: int) -> ContextFacts:
    """Measures the context maps of a loss on the hooked features of one step; arguments as :func:`graph_facts`."""
    tokens = _tokens(loss, io_dicts)
    num_images, cells, _ = tokens['student'].shape
    saturated = {}
    for side in SIDES:
        features = tokens[side][: max(1, MEASURED_ENTRIES // cells**2)].float()
        context = loss.term.context(features)
        saturated[side] = (context.amax(2) > SATURATED_ROW).float().mean().item() if cells > 1 else 0.0
    return ContextFacts(term, cells, map_bytes(num_images, cells), map_bytes(batch_size, cells), saturated)


def _tokens(loss: RelationLoss, io_dicts: tuple[Any, Any]) -> dict[str, Tensor]:
    """Returns the tokens [B, N, D] of both models over the common grid."""
    grids = pool_to_common_grid(*loss.token_grids(*io_dicts))
    return {side: flatten_grid(grid.detach()) for side, grid in zip(SIDES, grids, strict=True)}
