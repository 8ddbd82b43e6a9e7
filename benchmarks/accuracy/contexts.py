"""What the contextual term does to a student: python benchmarks/accuracy/contexts.py RUN... --data DATA.

A table of the teacher and of the students in the folders RUN of ``grid.py``, over 512 images of val/: the norm of their
tokens, the entropy of their literal context maps (rows of softmax(F F^T / sqrt(D))), and the mean squared distance of
those to the teacher's. A map of equal entries has the last row's distance.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from config import MEAN, STD
from recipes import RECIPES
from torch import Tensor, nn
from torchdistill.models.registry import get_model
from torchvision import datasets, transforms

import trg_torchdistill  # noqa: F401  registers the models
from trg_torchdistill.graph import context_similarity
from trg_torchdistill.tokens import flatten_grid

NUM_IMAGES = 512
WEIGHTS = Path(__file__).resolve().parent / 'results'


def read_images(folder: Path) -> Tensor:
    """Some images of all classes, [B, 3, 32, 32]."""
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    images = datasets.ImageFolder(folder, transform)
    step = max(1, len(images) // NUM_IMAGES)
    return torch.stack([images[index][0] for index in range(0, len(images), step)][:NUM_IMAGES])


@torch.inference_mode()
def tokens_of(model: nn.Module, layer: str, weights: Path, images: Tensor) -> Tensor:
    """The tokens [B, N, D] that a layer gives in evaluation mode."""
    model.load_state_dict(torch.load(weights, map_location='cpu', weights_only=True)['model'])
    found: list[Tensor] = []
    hook = model.get_submodule(layer).register_forward_hook(lambda _, inputs, output: found.append(output.clone()))
    model.eval()(images)
    hook.remove()
    return flatten_grid(found[0])


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', nargs='+', type=Path, metavar='RUN')
    parser.add_argument('--data', type=Path, required=True)
    parser.add_argument('--teacher', type=Path, help='its weights; default: those beside the notes')
    parser.add_argument('--recipe', choices=list(RECIPES), default='cpu')
    options = parser.parse_args()
    pair, images = RECIPES[options.recipe].pair, read_images(options.data / 'val')
    models = {'teacher': (pair.teacher, options.teacher or WEIGHTS / f'{options.recipe}-teacher.pt')}
    models |= {run.name: (pair.student, run / 'best.pt') for run in options.runs}
    maps: dict[str, Tensor] = {}
    print('| model | norm of a token | entropy of a row | squared distance to the teacher |\n|---|---|---|---|')
    for name, (network, weights) in models.items():
        tokens = tokens_of(get_model(network.key, num_classes=pair.classes), network.layers[-1], weights, images)
        maps[name] = context_similarity(tokens)
        print_row(name, f'{tokens.norm(dim=-1).mean():.2f}', maps[name], maps['teacher'])
    print_row('equal entries', '', torch.full_like(maps['teacher'], 1 / maps['teacher'].shape[-1]), maps['teacher'])


def print_row(name: str, norm: str, maps: Tensor, teacher: Tensor) -> None:
    """One row of the table; an entropy is given beside its largest value."""
    entropy = torch.special.entr(maps).sum(-1).mean()
    distance = (maps - teacher).square().mean()
    print(f'| {name} | {norm} | {entropy:.2f} of {math.log(maps.shape[-1]):.2f} | {distance:.5f} |')


if __name__ == '__main__':
    main()
