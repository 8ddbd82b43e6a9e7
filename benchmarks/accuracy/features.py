"""What the terms do to a student's tokens: python benchmarks/accuracy/features.py RUN... --data DATA.

A table of the teacher and of the students in the folders RUN of ``grid.py``, over 128 images of val/, a batch:

- norm of a token;
- entropy of the rows of the literal context map, softmax(F F^T / sqrt(D)), and squared distance to the teacher's map;
- in the graph of 8 tokens an image, L2-normalised: how many of a token's 8 neighbours are the teacher's as well, the
  squared distance to its own neighbours, and to the teacher's.

A map of equal entries and neighbours drawn at random are the last row. A second table says, of a row of the softmax of
cosine / temperature in the teacher's graph, what the token itself gets, and what two kinds of tokens get that InfoNCE
takes for negatives: the others of its image, and those of its class in other images.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from config import MEAN, STD
from recipes import RECIPES
from torch import Tensor, nn
from torchdistill.models.registry import get_model
from torchvision import datasets, transforms

import trg_torchdistill  # noqa: F401  registers the models
from trg_torchdistill.context import context_similarity
from trg_torchdistill.graph import nearest_neighbors
from trg_torchdistill.tokens import draw_cells, flatten_grid, normalize, take_cells

TEMPERATURES = (0.5, 0.1, 0.05)
NUM_IMAGES, TOKENS_PER_IMAGE, NUM_NEIGHBORS = 128, 8, 8
WEIGHTS = Path(__file__).resolve().parent / 'results'
HEADER = (
    'model',
    'norm',
    'entropy of a context row',
    "to the teacher's map",
    f"of {NUM_NEIGHBORS} neighbours the teacher's",
    'square distance to own neighbours',
    "to the teacher's neighbours",
)


@dataclass(frozen=True)
class Features:
    """What is measured of one model.

    Attributes:
        norm: Mean norm of a token.
        context: Context maps [B, N, N].
        graph: Tokens of the graph [M, D], normalised.
        neighbors: Neighbours of each [M, k].
    """

    norm: float
    context: Tensor
    graph: Tensor
    neighbors: Tensor


def read_images(folder: Path) -> tuple[Tensor, Tensor]:
    """Some images of all classes, [B, 3, 32, 32], and their classes [B]."""
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    images = datasets.ImageFolder(folder, transform)
    step = max(1, len(images) // NUM_IMAGES)
    chosen = [images[index] for index in range(0, len(images), step)][:NUM_IMAGES]
    return torch.stack([image for image, _ in chosen]), torch.tensor([label for _, label in chosen])


@torch.inference_mode()
def measure(model: nn.Module, layer: str, weights: Path, images: Tensor) -> Features:
    """Features of a layer in evaluation mode."""
    model.load_state_dict(torch.load(weights, map_location='cpu', weights_only=True)['model'])
    found: list[Tensor] = []
    hook = model.get_submodule(layer).register_forward_hook(lambda _, inputs, output: found.append(output.clone()))
    model.eval()(images)
    hook.remove()
    tokens = flatten_grid(found[0])
    cells = draw_cells(len(tokens), tokens.shape[1], TOKENS_PER_IMAGE, torch.Generator().manual_seed(0))
    graph = normalize(take_cells(tokens, cells))
    neighbors = nearest_neighbors(graph, NUM_NEIGHBORS)
    return Features(float(tokens.norm(dim=-1).mean()), context_similarity(tokens), graph, neighbors)


def describe(own: Features, teacher: Features) -> list[str]:
    """The cells of a row."""
    shared = (own.neighbors[:, :, None] == teacher.neighbors[:, None, :]).sum((1, 2)).float().mean()
    return [
        f'{own.norm:.2f}',
        *_describe_context(own.context, teacher.context),
        f'{shared:.2f}',
        *(f'{_square_distance(own.graph, each.neighbors):.2f}' for each in (own, teacher)),
    ]


def describe_softmax(graph: Tensor, labels: Tensor, temperature: float) -> list[str]:
    """Shares of a row of the softmax, in percent."""
    softmax = (graph @ graph.T / temperature).softmax(1)
    image, label = (each.repeat_interleave(TOKENS_PER_IMAGE) for each in (torch.arange(len(labels)), labels))
    itself = torch.eye(len(graph), dtype=torch.bool)
    same_image, same_class = (each[:, None] == each for each in (image, label))
    masks = (itself, same_image & ~itself, same_class & ~same_image)
    return [f'{100 * (softmax * mask).sum(1).mean():.0f}' for mask in masks]


def _describe_context(own: Tensor, teacher: Tensor) -> list[str]:
    return [f'{torch.special.entr(own).sum(-1).mean():.2f}', f'{(own - teacher).square().mean():.5f}']


def _square_distance(graph: Tensor, neighbors: Tensor) -> float:
    return float((graph[:, None] - graph[neighbors]).square().sum(-1).mean())


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', nargs='+', type=Path, metavar='RUN')
    parser.add_argument('--data', type=Path, required=True)
    parser.add_argument('--teacher', type=Path, help='its weights; default: those beside the notes')
    parser.add_argument('--recipe', choices=list(RECIPES), default='cpu')
    options = parser.parse_args()
    pair = RECIPES[options.recipe].pair
    images, labels = read_images(options.data / 'val')
    models = {'teacher': (pair.teacher, options.teacher or WEIGHTS / f'{options.recipe}-teacher.pt')}
    models |= {run.name: (pair.student, run / 'best.pt') for run in options.runs}
    rows = [HEADER, ['---'] * len(HEADER)]
    measured: dict[str, Features] = {}
    for name, (network, weights) in models.items():
        model = get_model(network.key, num_classes=pair.classes)
        measured[name] = measure(model, network.layers[-1], weights, images)
        rows.append([name, *describe(measured[name], measured['teacher'])])
    teacher = measured['teacher']
    equal = torch.full_like(teacher.context, 1 / teacher.context.shape[-1])
    expected = NUM_NEIGHBORS**2 / (len(teacher.graph) - 1)
    rows.append(['chance', '', *_describe_context(equal, teacher.context), f'{expected:.2f}', '', ''])
    print_table(rows)
    header = ['temperature', 'the token itself', 'its image', 'its class, other images']
    rows = [header, ['---'] * len(header)]
    rows += [[f'{t:g}', *describe_softmax(teacher.graph, labels, t)] for t in TEMPERATURES]
    print()
    print_table(rows)


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Prints Markdown."""
    print('\n'.join(f'| {" | ".join(row)} |' for row in rows))


if __name__ == '__main__':
    main()
