"""Time of a whole training step with TRG, with plain KD and with other methods of torchdistill: B5.

python benchmarks/step.py imagenet|cifar [--json FILE]

A step is what the host's ``DistillationBox`` does with one batch that is in memory already: teacher forward, student
forward, loss, backward, optimizer. Every method has a box of its own with models of its own, built from the same seed,
and all step in turn on the same batch; the teacher is in eval mode for all. Not in it: loading of data.

imagenet: ResNet-34 -> ResNet-18, 1000 classes; on a CPU 64 x 64 images, batch 64, on a GPU 224 x 224, batch 256.
cifar: ResNet-56 -> ResNet-20 of torchdistill, 100 classes, 32 x 32 images, batch 128.

``--amp bf16`` runs the forward passes and losses of every method under autocast; on a GPU a column tells by how much a
step lifts the peak of the device's memory.

CRD draws 16384 negatives an image, as in its sample configuration, from a memory of ``--crd-rows`` (50000) samples.
"""

from __future__ import annotations

import copy
import json
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import torch
import torchvision
from _methods import CRD_NEGATIVES, Config, make_methods
from _pairs import PAIRS, Pair
from _timing import (
    add_bar,
    clock,
    finish,
    interleave,
    make_parser,
    make_row,
    parse_sizes,
    peak_bytes,
    print_row,
    reset_peak,
    use_clock,
)
from torch import nn
from torchdistill.common.constant import def_logger
from torchdistill.core.distillation import get_distillation_box
from torchdistill.models import classification

from trg_torchdistill.cli.runtime.precision import Precision

LIMITS = {('imagenet', 'cpu'): 1.05, ('cifar', 'cpu'): 1.15, ('imagenet', 'cuda'): 1.03, ('cifar', 'cuda'): 1.15}
OURS = ('TRG', 'TRG + contextual', 'TRG + contextual + projector')
REPEATS = {'imagenet': 15, 'cifar': 15}
SMOKE_METHODS = 'plain KD,TRG,KR (ReviewKD)'


def make_model(table: str, key: str, classes: int) -> nn.Module:
    """A model with random weights, the same ones for each box."""
    torch.manual_seed(0)
    models = torchvision.models if table == 'imagenet' else classification.resnet
    model: nn.Module = getattr(models, key)(num_classes=classes)
    return model


def make_step(
    table: str, pair: Pair, config: Config, batch: tuple[Any, ...], device: torch.device, precision: Precision
) -> tuple[Any, ...]:
    """A call that does one training step, and how many parameters are trained beside the student's."""
    teacher, student = (make_model(table, key, pair.classes).to(device) for key in (pair.teacher.key, pair.student.key))
    size = sum(parameter.numel() for parameter in student.parameters())
    box = get_distillation_box(teacher, student, {}, copy.deepcopy(config), device, None, False, 1)
    box.pre_epoch_process(epoch=0)
    teacher.eval()
    trained = sum(p.numel() for group in box.optimizer.param_groups for p in group['params'] if p.requires_grad)

    def step() -> None:
        images, targets, supp_dict = batch
        with precision.autocast():
            loss = box.forward_process(images, targets, supp_dict)
        precision.post_forward_process(box, loss)

    return step, trained - size


def _growth(step: Callable[[], object], device: str) -> int:
    """Bytes by which a step lifts the peak of the device's memory."""
    before = torch.cuda.memory_allocated(device)
    reset_peak(device)
    step()
    return peak_bytes(device) - before


def run(table: str, sizes: tuple[int, int], options: Namespace) -> dict[str, Any]:
    """The row of one size."""
    pair, device = PAIRS[table], torch.device(options.device)
    image_size, batch_size = sizes
    methods = make_methods(pair, image_size, options.crd_rows)
    if options.methods:
        names = options.methods.split(',')
        if unknown := [name for name in names if name not in methods]:
            raise SystemExit(f'expected --methods of {", ".join(methods)}, found {", ".join(unknown)}')
        methods = {name: methods[name] for name in names}
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch_size, 3, image_size, image_size, generator=generator)
    targets = torch.randint(pair.classes, (batch_size,), generator=generator)
    supp_dict = {
        'pos_idx': torch.randperm(options.crd_rows, generator=generator)[:batch_size],
        'contrast_idx': torch.randint(options.crd_rows, (batch_size, CRD_NEGATIVES + 1), generator=generator),
    }
    batch = (images.to(device), targets.to(device), {key: value.to(device) for key, value in supp_dict.items()})
    steps: dict[str, Callable[[], object]] = {}
    extra, failed, memory = {}, {}, {}
    for name, config in methods.items():
        try:
            step, extra[name] = make_step(table, pair, config, batch, device, Precision(options.amp, device))
            clock(step, options.device)
            if device.type == 'cuda':
                memory[name] = _growth(step, options.device)
            steps[name] = step
        except (RuntimeError, ValueError, KeyError, AttributeError, TypeError) as error:
            failed[name] = f'{type(error).__name__}: {error}'
            print(f'<!-- {name} does not run here: {failed[name]} -->', flush=True)
    # One step is a sample, however short it is.
    samples = interleave(steps, options.repeats, options.device, shortest=0.0)
    more = {'extra_parameters': extra, 'growth_bytes': memory, 'failed': failed, 'crd_rows': options.crd_rows}
    size = {'pair': table, 'image': image_size, 'batch': batch_size, **({'amp': options.amp} if options.amp else {})}
    row = make_row(size, samples, 'plain KD', **more)
    ratios = {name: peer['ratio']['median'] for name, peer in row['peers'].items()}
    for name in OURS:
        if name in ratios:
            add_bar(row, f'{name} / plain KD', ratios[name], LIMITS[table, device.type])
            for other in ('CRD', 'KR (ReviewKD)'):
                if other in ratios:
                    add_bar(row, f'{name} / {other}', ratios[name] / ratios[other], 1.0)
    return row


def main() -> None:
    """Runs one table."""
    def_logger.setLevel('WARNING')
    parser = make_parser(__doc__, PAIRS)
    parser.add_argument('--methods', help='only these, comma-separated, plain KD among them')
    parser.add_argument('--crd-rows', type=int, default=50000, help="samples in CRD's memory")
    parser.add_argument('--amp', choices=['bf16', 'fp16'], help='run the forward processes under autocast')
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    use_clock(options.clock)
    options.repeats = options.repeats or (2 if options.smoke else REPEATS[options.table])
    kind = torch.device(options.device).type
    image_size, batch_size = PAIRS[options.table].sizes[kind]
    default = (min(64, image_size), 4) if options.smoke else (image_size, batch_size)
    if options.smoke:
        options.methods = options.methods or SMOKE_METHODS
    rows = []
    for image_size, batch_size in parse_sizes(options.sizes, [default]):
        rows.append(run(options.table, (image_size, batch_size), options))
        print_row(rows[-1], header=len(rows) == 1)
        print(f'<!-- parameters beside the student: {json.dumps(rows[-1]["extra_parameters"])} -->')
        print(f'<!-- growth of memory, bytes: {json.dumps(rows[-1]["growth_bytes"])} -->')
    finish(options, rows)


if __name__ == '__main__':
    main()
