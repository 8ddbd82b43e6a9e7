"""t-SNE of the features before the last layer, a panel for each model."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from trg_torchdistill.cli.plot.figures import STYLES, blank_figure
from trg_torchdistill.cli.plot.images import MAX_CLASSES, Images
from trg_torchdistill.cli.plot.models import Model
from trg_torchdistill.errors import TRGError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANEL = 3.2
MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X', '<', '>', '*')
PERPLEXITY = 30.0
MIN_IMAGES = 4


def load_tsne() -> Any:
    """Returns scikit-learn's class.

    Raises:
        TRGError: If scikit-learn is missing.
    """
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
    return load_tsne()(n_components=2, perplexity=perplexity, random_state=seed, init='random').fit_transform(
        features.numpy()
    )


def draw_embedding(points: Mapping[str, Any], models: Sequence[Model], images: Images) -> Figure:
    """Draws the images of up to ten classes, the most frequent ones, as points; a class has its colour and marker.

    Args:
        points: Array [B, 2] by label of the model.
        models: The models, in the order of the panels.
        images: The images.

    Raises:
        TRGError: If matplotlib is missing.
    """
    frequent = sorted(label for label, _ in Counter(images.labels).most_common(MAX_CLASSES))
    title = f't-SNE of the features before the last layer, {len(images.labels)} images'
    figure = blank_figure(PANEL * len(models), PANEL + 0.9, title)
    panels = figure.subplots(1, len(models), squeeze=False)[0]
    for axes, model in zip(panels, models, strict=True):
        for label, (color, _), marker in zip(frequent, itertools.cycle(STYLES), MARKERS, strict=False):
            own = points[model.label][[place for place, other in enumerate(images.labels) if other == label]]
            look = {'s': 22, 'c': color, 'marker': marker, 'linewidths': 0.4, 'edgecolors': 'white'}
            axes.scatter(own[:, 0], own[:, 1], label=images.names[label], **look)
        axes.set_title(f'{model.label} ({model.key})', fontsize=10)
        axes.set(xticks=[], yticks=[])
    handles = panels[0].collections
    figure.legend(handles=handles, title='class', loc='outside lower center', ncols=10, frameon=False, fontsize=9)
    return figure
