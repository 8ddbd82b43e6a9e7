"""A long run of the full method in torchdistill's own box: does anything grow?

python benchmarks/soak.py [--steps 2000] [--queue 1000] [--json FILE]

The box of ``configs/sample/digits/trg.yaml`` (projection, contextual term, dynamic temperature, both processes) trains
on scikit-learn's digits in batches of 10, five steps an epoch, with the host's processes and an evaluation of the
wrapped student in each epoch. Every ``--every`` steps it notes the process's resident memory, the objects and tensors
that Python's collector tracks (beside those from before the first step), the hooks, and what the io dicts hold. The
teacher has random weights.
"""

from __future__ import annotations

import gc
import itertools
import json
import math
import resource
import statistics
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchdistill.common.yaml_util import load_yaml_file
from torchdistill.core.distillation import get_distillation_box
from torchdistill.models.registry import get_model

import trg_torchdistill  # noqa: F401  registers the keys

CONFIG = Path(__file__).resolve().parents[1] / 'configs' / 'sample' / 'digits' / 'trg.yaml'
BATCH_SIZE, IMAGES = 10, 50
HOOKS = ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks', '_backward_pre_hooks')


def make_box(epochs: int, queue_size: int) -> Any:
    """The host's box for that many epochs; with a queue, edges are the teacher's and targets soft."""
    config = load_yaml_file(str(CONFIG))
    models = {name: config['models'][name] for name in ('teacher_model', 'student_model')}
    teacher, student = (get_model(model['key'], **model['kwargs']) for model in models.values())
    config['train']['num_epochs'] = epochs
    config['train']['train_data_loader']['kwargs']['batch_size'] = BATCH_SIZE
    if queue_size:
        options = {'edges': 'teacher', 'global_targets': 'teacher', 'queue_size': queue_size}
        config['train']['criterion']['kwargs']['sub_terms']['trg']['criterion']['kwargs'] |= options
    return get_distillation_box(
        teacher, student, config['datasets'], config['train'], torch.device('cpu'), None, False, 1
    )


def leaves(value: Any) -> int:
    """Tensors in a nested dict."""
    return sum(map(leaves, value.values())) if isinstance(value, dict) else 1


def hooks_of(model: nn.Module) -> int:
    """Hooks on all modules of a model."""
    return sum(len(getattr(module, name)) for module in model.modules() for name in HOOKS)


def note(box: Any, step: int) -> dict[str, int]:
    """What could grow, now."""
    gc.collect()
    objects = gc.get_objects()
    return {
        'step': step,
        'resident_bytes': int(Path('/proc/self/statm').read_text().split()[1]) * resource.getpagesize(),
        'objects': len(objects),
        'tensors': sum(issubclass(type(item), torch.Tensor) for item in objects),
        'hooks': hooks_of(box.student_model) + hooks_of(box.teacher_model),
        'io_tensors': leaves(box.student_io_dict) + leaves(box.teacher_io_dict),
        'io_paths': len(box.student_io_dict) + len(box.teacher_io_dict),
    }


def soak(steps: int, every: int, queue_size: int = 0) -> tuple[list[dict[str, int]], list[float]]:
    """Trains and returns the notes, taken at ends of epochs, and the losses of all steps."""
    torch.manual_seed(0)
    notes: list[dict[str, int]] = []
    losses: list[float] = []
    epochs = math.ceil(steps * BATCH_SIZE / IMAGES)
    box = make_box(epochs, queue_size)
    gc.freeze()  # what is there already is neither looked through nor counted
    for epoch in range(epochs):
        box.pre_epoch_process(epoch=epoch)
        for images, targets, supp_dict in box.train_data_loader:
            loss = box.forward_process(images, targets, supp_dict)
            box.post_forward_process(loss=loss)
            losses.append(loss.item())
        del images, targets, supp_dict, loss
        box.student_model.eval()
        with torch.inference_mode():
            for images, _ in box.val_data_loader:
                box.student_model(images)
        del images
        box.post_epoch_process()
        if len(losses) % every == 0:
            notes.append(note(box, len(losses)))
    gc.unfreeze()
    return notes, losses


def slope(steps: list[int], values: list[int]) -> tuple[float, float]:
    """Slope of the least-squares line and its standard error."""
    line = statistics.linear_regression(steps, values)
    rests = [value - line.slope * step - line.intercept for step, value in zip(steps, values, strict=True)]
    spread = sum((step - statistics.mean(steps)) ** 2 for step in steps)
    return line.slope, math.sqrt(sum(rest**2 for rest in rests) / (len(steps) - 2) / spread)


def median_slope(steps: list[int], values: list[int]) -> float:
    """Median of the slopes between all pairs of notes: what a passing dip or peak of the memory does not move."""
    points = list(zip(steps, values, strict=True))
    return statistics.median((b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.combinations(points, 2))


def main() -> None:
    """Prints how much each count grew after the warm-up, and the slope of the resident memory."""
    parser = ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument('--steps', type=int, default=2000)
    parser.add_argument('--every', type=int, default=20, help='steps between two notes, a multiple of 5')
    parser.add_argument('--warm-up', type=int, default=500, help='steps before the slope')
    parser.add_argument('--queue', type=int, default=0, help='`queue_size` of `TRGLoss`')
    parser.add_argument('--json', type=Path, help='file that gets all notes')
    options = parser.parse_args()
    torch.set_num_threads(1)
    notes, losses = soak(options.steps, options.every, options.queue)
    kept = [row for row in notes if row['step'] > options.warm_up]
    line = [row['step'] for row in kept], [row['resident_bytes'] for row in kept]
    bytes_a_step, error = slope(*line)
    print(f'steps {len(losses)}, losses finite: {all(map(math.isfinite, losses))}, last {losses[-1]:.4f}')
    print(f'resident memory: {bytes_a_step:.0f} +- {error:.0f} bytes a step after step {options.warm_up}')
    print(f'the same by the median of all pairs of notes: {median_slope(*line):.0f} bytes a step')
    for name in kept[0]:
        values = [row[name] for row in kept]
        print(f'{name}: first {values[0]}, last {values[-1]}, min {min(values)}, max {max(values)}')
    if options.json is not None:
        options.json.write_text(json.dumps({'notes': notes, 'losses': losses}) + '\n')


if __name__ == '__main__':
    main()
