"""What each term asks of a student, before training and after it: python benchmarks/accuracy/gradients.py RUN...

A table of the terms beside the first one, ``KDLoss``, in the YAML of each folder RUN of ``grid.py``, over some batches
of its training images: the norm of the gradient of weight * term on the student's parameters, divided by that of the
first term, and the cosine of the angle between the two gradients.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path

import torch
from features import print_table
from torch import Tensor, nn

from trg_torchdistill.cli.check.steps import Witness, batches_of, gradients_of
from trg_torchdistill.cli.probe.build import build_box, build_with_weights
from trg_torchdistill.cli.probe.forward import forward_loss
from trg_torchdistill.cli.recipe.config import import_packages, load_config
from trg_torchdistill.cli.runtime.placement import Placement
from trg_torchdistill.cli.tasks.recognised import CLASSIFICATION
from trg_torchdistill.cli.train.checkpoint import load_training_state, restore_training_state
from trg_torchdistill.host import Box

NUM_BATCHES = 8
CPU = Placement(torch.device('cpu'))
HEADER = ('run', 'epochs', 'term', 'gradient, of the first term = 1', 'cosine')


def measure(box: Box, student: nn.Module) -> dict[str, list[tuple[float, float]]]:
    """Relative norm and cosine of each term but the first, in each batch."""
    found: dict[str, list[tuple[float, float]]] = {}
    for batch in batches_of(CLASSIFICATION, box, NUM_BATCHES):
        with Witness(box.criterion) as witness:
            loss = forward_loss(box, *batch)
        first, *others = witness.terms(loss)
        reference = _gradient(*first[2:], student)
        for name, part, weight, value in others:
            gradient = _gradient(weight, value, student)
            cosine = torch.cosine_similarity(gradient, reference, dim=0)
            found.setdefault(f'{name}.{part}'.rstrip('.'), []).append(
                (float(gradient.norm() / reference.norm()), float(cosine))
            )
    return found


def _gradient(weight: float, value: Tensor, student: nn.Module) -> Tensor:
    return torch.cat([part.flatten() for part in gradients_of(weight, value, list(student.parameters()))])


def describe(run: Path) -> Iterator[list[str]]:
    """Yields the rows of a run: each term with random weights, then with the last ones."""
    config = load_config(str(run / 'config.yaml'))
    import_packages(config)
    if config.teacher_path is None or config.student_path is None:
        raise SystemExit(f'expected {run} to be a distillation, got the training of one model')
    for is_trained in (False, True):
        torch.manual_seed(0)
        teacher, student = (build_with_weights(config, path)[0] for path in (config.teacher_path, config.student_path))
        box = build_box(config, teacher, student, CPU)
        epochs = 0
        if is_trained:
            file = run / 'last.pt'
            state = load_training_state(file)
            epochs = restore_training_state(box, state, file, CPU.processes, CPU.precision).epochs_done
        box.pre_epoch_process(epoch=max(0, epochs - 1))
        for term, values in measure(box, student).items():
            means = (statistics.mean(each) for each in zip(*values, strict=True))
            yield [run.name, str(epochs), term, *(f'{mean:.2f}' for mean in means)]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', nargs='+', type=Path, metavar='RUN')
    options = parser.parse_args()
    print_table([HEADER, ['---'] * len(HEADER), *(row for run in options.runs for row in describe(run))])


if __name__ == '__main__':
    main()
