"""The pictures of the models of a YAML: token graph, context maps, and t-SNE; a row or a panel for each model."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from trg_torchdistill.cli.plot.figures import CHOSEN, STYLES, new_figure, outline, show_image
from trg_torchdistill.cli.plot.images import MAX_CLASSES, Images
from trg_torchdistill.cli.plot.models import TEACHER
from trg_torchdistill.cli.plot.tokens import Grid, Neighbors
from trg_torchdistill.errors import TRGError
from trg_torchdistill.losses.maps import ImageMaps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Captions = Mapping[str, str]

GRAPH_PANEL, MAP_PANEL, TSNE_PANEL = 1.25, 2.2, 3.2
BEND = 0.12
SHARED, OTHER = (STYLES[5][0], '-'), (STYLES[1][0], (0, (3, 1.5)))
MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X', '<', '>', '*')
PERPLEXITY = 30.0
MIN_IMAGES = 4


EDGES = {
    'own': 'its {} nearest neighbours',
    'teacher': "the teacher's {} nearest neighbours",
    'union': "its own and the teacher's {} nearest neighbours",
}


def draw_graph(
    graphs: Mapping[str, Neighbors],
    edges: str,
    shares: Mapping[str, float],
    captions: Captions,
    titles: Sequence[str],
    pixels: Tensor,
    chosen: tuple[int, int, int],
    grid: Grid,
) -> Figure:
    """Draws a row of images for each model, with the edges of one token.

    Args:
        graphs: Edges of the token by label of the model.
        edges: Whose neighbours they are, ``own``, ``teacher`` or ``union``.
        shares: Share of the teacher's neighbours that are a model's own, over all tokens; nothing without a teacher.
        captions: Of the rows, by label of the model.
        titles: Of the images.
        pixels: The images as they are seen, [B, H, W, 3] or [B, H, W].
        chosen: Image, row and column of the token.
        grid: Cells [h, w] of an image.
    """
    reference = graphs.get(TEACHER)
    number = len(next(iter(graphs.values())))
    figure, panels = new_figure(
        len(graphs),
        len(pixels),
        (GRAPH_PANEL * len(pixels) + 2.2, (GRAPH_PANEL + 0.2) * len(graphs) + 1.0),
        f'Token graph: one token (row {chosen[1]}, column {chosen[2]} of {grid[0]} x {grid[1]}) and '
        f'{EDGES[edges].format(number)} in other images',
    )
    for axes, title in zip(panels, titles, strict=False):
        axes.set_title(title, fontsize=9)
    for place, (label, neighbors) in enumerate(graphs.items()):
        row = panels[place * len(pixels) :][: len(pixels)]
        for axes, seen in zip(row, pixels, strict=True):
            _show_cells(axes, seen, grid)
        caption = captions[label]
        if reference is not None and label != TEACHER:
            if edges == 'own':
                caption += f'\n{len(reference.keys() & neighbors.keys())} of {number} as the teacher'
                caption += f'\n({shares[label]:.0%} over all tokens)'
            else:
                caption += f"\nof the teacher's,\n{shares[label]:.0%} are its own\n(over all tokens)"
        row[0].set_ylabel(caption, rotation=0, ha='right', va='center', labelpad=8, fontsize=9)
        _draw_edges(figure, row, neighbors, neighbors if reference is None else reference, chosen, grid)
    handles = _legend(can_differ=reference is not None and edges != 'teacher')
    figure.legend(handles=handles, loc='outside lower center', ncols=4, frameon=False, fontsize=9)
    return figure


def _show_cells(axes: Axes, pixels: Tensor, grid: Grid) -> None:
    height, width = pixels.shape[:2]
    show_image(axes, pixels)
    axes.set_xticks([column * width / grid[1] - 0.5 for column in range(1, grid[1])], [])
    axes.set_yticks([row * height / grid[0] - 0.5 for row in range(1, grid[0])], [])
    axes.tick_params(length=0)
    axes.grid(color='#888888', linewidth=0.3, alpha=0.6)


def _draw_edges(
    figure: Figure,
    row: Sequence[Axes],
    neighbors: Neighbors,
    reference: Neighbors,
    chosen: tuple[int, int, int],
    grid: Grid,
) -> None:
    from matplotlib.patches import ConnectionPatch

    height, width = row[0].images[0].get_size()
    cell = (height / grid[0], width / grid[1])
    outline(row[chosen[0]], chosen[1:], cell)
    side = -1 if 2 * chosen[1] >= grid[0] else 1  # upwards from the lower half of an image, else downwards
    for (image, index), affinity in neighbors.items():
        color, dashes = SHARED if (image, index) in reference else OTHER
        place = divmod(index, grid[1])
        outline(row[image], place, cell, color)
        edge = ConnectionPatch(
            _center(chosen[1:], cell),
            _center(place, cell),
            'data',
            axesA=row[chosen[0]],
            axesB=row[image],
            color=color,
            linestyle=dashes,
            linewidth=0.6 + 1.4 * affinity,
            connectionstyle=f'arc3,rad={BEND * side * (1 if image > chosen[0] else -1)}',
            shrinkB=3,
        )
        edge.set_in_layout(False)
        figure.add_artist(edge)


def _center(place: tuple[int, int], cell: tuple[float, float]) -> tuple[float, float]:
    """Middle of a cell, x and y in pixels."""
    return (place[1] + 0.5) * cell[1] - 0.5, (place[0] + 0.5) * cell[0] - 0.5


def _legend(can_differ: bool) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    edges: dict[str, tuple[str, Any]] = {'neighbour': SHARED}
    if can_differ:
        edges = {'also a neighbour for the teacher': SHARED, 'not a neighbour for the teacher': OTHER}
    return [
        Patch(fill=False, edgecolor=CHOSEN, linewidth=2, label='the token'),
        *(Line2D([], [], color=color, ls=dashes, linewidth=2, label=text) for text, (color, dashes) in edges.items()),
        Line2D([], [], linestyle='', label='thicker: larger affinity'),
    ]


def draw_context(
    tokens: Mapping[str, Tensor],
    captions: Captions,
    pixels: Tensor,
    cell: Grid,
    grid: Grid,
    maps: ImageMaps,
    counts: Tensor | None = None,
) -> Figure:
    """Draws an image, and for each model the row of its map that belongs to one cell of the grid.

    The tokens are [1, N, D] by label of the model, the image is [H, W, 3] or [H, W] as it is seen. ``counts``
    says which of the tokens [N] do, None for all.
    """
    height, width = grid
    mask = () if counts is None else (counts[None],)
    rows = {label: maps.of(values, *mask)[0, cell[0] * width + cell[1]] for label, values in tokens.items()}
    greatest = max(float(row.max()) for row in rows.values())
    figure, panels = new_figure(
        1,
        len(tokens) + 1,
        (MAP_PANEL * (len(tokens) + 1) + 0.8, MAP_PANEL + 1.2),
        f'{maps.name.capitalize()}: {maps.relation} of one token (row {cell[0]}, column {cell[1]} of {height} x '
        f'{width}) to all tokens of its image',
    )
    show_image(panels[0], pixels)
    outline(panels[0], cell, (pixels.shape[0] / height, pixels.shape[1] / width))
    panels[0].set_title('image', fontsize=9)
    for axes, (label, row) in zip(panels[1:], rows.items(), strict=True):
        axes.imshow(row.view(height, width).numpy(), cmap='viridis', vmin=0, vmax=greatest)
        outline(axes, cell, (1, 1))
        axes.set_title(captions[label], fontsize=9)
        axes.set(xticks=[], yticks=[])
        if TEACHER in tokens and label != TEACHER:
            difference = float(maps.difference(tokens[label], tokens[TEACHER], *mask))
            axes.set_xlabel(f'{maps.loss}\nof the image: {difference:.2g}', fontsize=9)
    figure.colorbar(panels[-1].images[0], ax=panels, label=maps.scale, shrink=0.8, pad=0.01)
    return figure


def load_tsne() -> Any:
    """Returns scikit-learn's class, or raises a TRGError that tells how to install it."""
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise TRGError(
            'expected scikit-learn, whose t-SNE is drawn, to be installed, got none; run: pip install '
            "'trg_torchdistill[demo]', or leave the picture out with `--only`"
        ) from error
    return TSNE


def embed(features: Tensor, seed: int) -> Any:
    """Returns the t-SNE of features [B, D] in the plane, an array [B, 2].

    Raises:
        TRGError: If there are fewer than four images; if scikit-learn is missing.
    """
    if len(features) < MIN_IMAGES:
        raise TRGError(f'expected at least {MIN_IMAGES} images for the t-SNE, got {len(features)}; raise `--samples`')
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    tsne = load_tsne()(n_components=2, perplexity=perplexity, random_state=seed, init='random')
    return tsne.fit_transform(features.numpy())


def draw_embedding(points: Mapping[str, Any], captions: Captions, images: Images) -> Figure:
    """Draws images of up to ten classes, the most frequent ones, as points, [B, 2] by label of the model.

    A class has its colour and marker.
    """
    frequent = sorted(label for label, _ in Counter(images.labels).most_common(MAX_CLASSES))
    title = f't-SNE of the features before the last layer, {len(images.labels)} images'
    figure, panels = new_figure(1, len(points), (TSNE_PANEL * len(points), TSNE_PANEL + 0.9), title)
    for axes, (model, places) in zip(panels, points.items(), strict=True):
        for label, (color, _), marker in zip(frequent, itertools.cycle(STYLES), MARKERS, strict=False):
            own = places[[place for place, other in enumerate(images.labels) if other == label]]
            look: dict[str, Any] = {'s': 22, 'c': color, 'marker': marker, 'linewidths': 0.4, 'edgecolors': 'white'}
            axes.scatter(own[:, 0], own[:, 1], label=images.names[label], **look)
        axes.set_title(captions[model].replace('\n', ' '), fontsize=10)
        axes.set(xticks=[], yticks=[])
    handles = panels[0].collections
    figure.legend(handles=handles, title='class', loc='outside lower center', ncols=10, frameon=False, fontsize=9)
    return figure
