"""Where the local term's gradient goes while a student trains, for `edges` own, teacher and union.

python benchmarks/edges.py [--epochs 30] [--seeds 3] [--output edges.png] [--json edges.json]

In plain torch, on scikit-learn's digits: a teacher of three convolutions is trained on the labels; students of a third
of its width get the labels and the local term, on 8 of 16 tokens an image. Of a fixed batch that they are not trained
on, each epoch notes the share of the term's gradient to the student's squared distances that lies on the pairs of a
token and one of the teacher's k nearest neighbours (spread evenly it would be k / (M - 1)), and the share of the
teacher's neighbours that are the student's.
"""

from __future__ import annotations

import itertools
import json
from argparse import ArgumentParser
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms.functional import to_tensor

from trg_torchdistill.datasets import Digits
from trg_torchdistill.diagnostics import local_gradient, share_on_teacher_edges
from trg_torchdistill.functional import EDGES, LocalTerm
from trg_torchdistill.graph import nearest_neighbors
from trg_torchdistill.tokens import draw_cells, flatten_grid, normalize, take_cells

BATCH_SIZE, DRAWN, WEIGHT = 50, 8, 1.0
TITLES = {'gradient': "of the gradient, on the teacher's edges", 'shared': "of the teacher's neighbours, the student's"}


class Net(nn.Module):
    """Three convolutions to a map of 4 x 4 tokens, and a linear layer on its mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = (3, width, 2 * width, 4 * width)
        self.features = nn.Sequential()
        for inside, outside in itertools.pairwise(widths):
            self.features.append(nn.Conv2d(inside, outside, 3, 2, 1, bias=False))
            self.features.append(nn.BatchNorm2d(outside))
            self.features.append(nn.ReLU())
        self.head = nn.Linear(widths[-1], 10)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits and the map."""
        grid = self.features(images)
        return self.head(grid.mean((2, 3))), grid


def digits(split: str) -> tuple[Tensor, Tensor]:
    """Returns all images and labels."""
    items = list(Digits(split))
    return torch.stack([to_tensor(image) for image, _ in items]), torch.tensor([label for _, label in items])


def graph_tokens(student: Tensor, teacher: Tensor) -> list[Tensor]:
    """Returns the tokens [M, D] of the same drawn cells of both maps."""
    cells = draw_cells(len(student), student.shape[2] * student.shape[3], DRAWN)
    return [take_cells(flatten_grid(grid), cells) for grid in (student, teacher)]


def train(model: Net, epochs: int, teacher: Net | None = None, term: LocalTerm | None = None) -> list[dict[str, float]]:
    """Trains a model on the labels, and with a term of a teacher; returns what each epoch notes of it."""
    images, labels = digits('train')
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    notes = []
    for _ in range(epochs):
        model.train()
        for batch in torch.randperm(len(images)).split(BATCH_SIZE):
            logits, grid = model(images[batch])
            loss = functional.cross_entropy(logits, labels[batch])
            if teacher is not None and term is not None:
                with torch.no_grad():
                    _, wanted = teacher(images[batch])
                loss = loss + WEIGHT * term(*graph_tokens(grid, wanted))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        if teacher is not None and term is not None:
            notes.append(look(model, teacher, term))
    return notes


@torch.no_grad()
def look(student: Net, teacher: Net, term: LocalTerm) -> dict[str, float]:
    """Returns where the gradient is, how many of the teacher's neighbours the student has, and its accuracy."""
    student.eval()
    images, labels = digits('test')
    logits, grid = student(images)
    few = slice(0, None, 6)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokens, wanted = graph_tokens(grid[few], teacher(images[few])[1])
    k = term.num_neighbors or LocalTerm.num_neighbors or 1
    own, others = (nearest_neighbors(normalize(each), k) for each in (tokens, wanted))
    shared = (own[:, :, None] == others[:, None]).any(2).float().mean().item()
    share = share_on_teacher_edges(local_gradient(term, tokens, wanted), normalize(wanted), k)
    return {'gradient': share, 'shared': shared, 'accuracy': (logits.argmax(1) == labels).float().mean().item()}


def main() -> None:
    """Trains, prints the last epoch, and draws all of them."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--epochs', type=int, default=30)
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--output', type=Path, default=Path('edges.png'), help='file for the picture')
    parser.add_argument('--json', type=Path, help='file for the numbers')
    options = parser.parse_args()
    runs: dict[str, list[list[dict[str, float]]]] = defaultdict(list)
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        teacher = Net(24)
        train(teacher, options.epochs)
        teacher.eval().requires_grad_(False)
        for edges in EDGES:
            torch.manual_seed(100 + seed)
            runs[edges].append(train(Net(8), options.epochs, teacher, LocalTerm(edges=edges)))
    print('| edges | ' + ' | '.join((*TITLES.values(), 'test accuracy')) + ' |\n|---|---|---|---|')
    for edges, seeds in runs.items():
        last = [[run[-1][name] for run in seeds] for name in (*TITLES, 'accuracy')]
        print(f'| {edges} | ' + ' | '.join(f'{mean(one):.3f} ± {stdev(one):.3f}' for one in last) + ' |')
    draw(runs, options.output)
    if options.json:
        options.json.write_text(json.dumps({'torch': torch.__version__, 'runs': runs}) + '\n', encoding='utf-8')


def draw(runs: dict[str, list[list[dict[str, float]]]], path: Path) -> None:
    """Draws both shares, a line a seed."""
    from matplotlib.figure import Figure

    figure = Figure((9, 3.2), layout='constrained')
    for axes, (name, title) in zip(figure.subplots(1, 2), TITLES.items(), strict=True):
        for color, (edges, seeds) in zip(('#0072b2', '#d55e00', '#009e73'), runs.items(), strict=True):
            for seed, run in enumerate(seeds):
                epochs = range(1, len(run) + 1)
                axes.plot(epochs, [note[name] for note in run], color=color, label=None if seed else edges)
        axes.set(title=f'Share {title}', xlabel='epoch', ylim=(0, None))
        axes.legend(title='edges', frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == '__main__':
    main()
