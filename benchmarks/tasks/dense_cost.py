"""Time and memory of a segmentation step with TRG, to those of the same step without.

python benchmarks/tasks/dense_cost.py 480 [--json FILE]

The table is named by the side of the images; batch 8, of which an eighth is padding. The teacher is DeepLabv3 and the
student LR-ASPP, both on a MobileNetV3 and with random weights: maps at stride 8 have 60 x 60 tokens of 40 features for
images of 480 x 480, those at stride 16 30 x 30 of 960. A step is what the host's ``DistillationBox`` does with one
batch: teacher and student forward, cross-entropy and the named terms, backward, optimizer. Memory is by how much one
step lifts the peak of the resident set.
"""

from __future__ import annotations

import ctypes
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _methods import Config, paths, side, term
from _timing import clock, finish, interleave, make_parser, make_row, peak_bytes, print_row, reset_peak, use_clock
from torchdistill.common.constant import def_logger
from torchdistill.core.distillation import get_distillation_box
from torchvision.models import segmentation

import trg_torchdistill  # noqa: F401  registers the losses

BATCH_SIZE, NUM_CLASSES, IGNORED = 8, 21, 255
WITHOUT = 'without TRG'
CPU = torch.device('cpu')
ALL: Config = {'tokens_per_image': None, 'max_tokens': None}
AT_STRIDE_8, AT_STRIDE_16 = ('low', 'aux'), ('high', 'out')
TERMS: dict[str, tuple[str, tuple[str, str], Config]] = {
    'TRG, stride 8, 8 tokens an image': ('TRGLoss', AT_STRIDE_8, {}),
    'TRG, stride 8, 64 an image': ('TRGLoss', AT_STRIDE_8, {'tokens_per_image': 64}),
    'TRG, stride 8, all, max_tokens 4096': ('TRGLoss', AT_STRIDE_8, {'tokens_per_image': None}),
    'TRG, stride 8, all, no cap': ('TRGLoss', AT_STRIDE_8, ALL),
    'TRG, stride 16, all, no cap': ('TRGLoss', AT_STRIDE_16, ALL),
    'contextual, stride 8': ('TokenContextualLoss', AT_STRIDE_8, {}),
    'contextual, stride 16': ('TokenContextualLoss', AT_STRIDE_16, {}),
}


def train_block(name: str) -> Config:
    """The ``train:`` block of a row of the table."""
    inputs = {'is_from_teacher': False, 'module_path': '.', 'io': 'output'}
    cross_entropy = {
        **term('CrossEntropyLoss', ignore_index=IGNORED),
        'criterion_wrapper': {
            'key': 'DictLossWrapper',
            'kwargs': {'input': inputs, 'target': {'uses_label': True}, 'weights': {'out': 1.0}},
        },
    }
    terms = {'ce': cross_entropy}
    if name != WITHOUT:
        key, (student, teacher), options = TERMS[name]
        kwargs = {**paths('backbone', 'backbone'), **options, 'token_mask': {'ignore_index': IGNORED}}
        terms['trg'] = term(key, **kwargs, student_tokens={'key': student}, teacher_tokens={'key': teacher})
    return {
        'num_epochs': 1,
        'pre_epoch_process': 'pre_epoch_process_with_trg',
        'teacher': side(['backbone'], requires_grad=False),
        'student': side(['backbone']),
        'optimizer': {'key': 'SGD', 'kwargs': {'lr': 0.001}},
        'criterion': {'key': 'WeightedSumLoss', 'kwargs': {'sub_terms': terms}},
    }


def make_step(name: str, batch: tuple[Any, ...]) -> Callable[[], object]:
    """A call that does one training step."""
    torch.manual_seed(0)
    options = {'weights': None, 'weights_backbone': None, 'num_classes': NUM_CLASSES}
    teacher = segmentation.deeplabv3_mobilenet_v3_large(aux_loss=True, **options)
    student = segmentation.lraspp_mobilenet_v3_large(**options)
    box = get_distillation_box(teacher, student, {}, train_block(name), CPU, None, False, 1)
    box.pre_epoch_process(epoch=0)

    def step() -> None:
        box.post_forward_process(loss=box.forward_process(*batch, {}))

    return step


def growth(step: Callable[[], object]) -> int:
    """Bytes by which a step lifts the peak of the resident set."""
    if sys.platform == 'linux':
        ctypes.CDLL(None).malloc_trim(0)  # what earlier steps freed would be taken again, unseen
    reset_peak()
    before = peak_bytes()
    step()
    return peak_bytes() - before


def run(side_of_images: int, options: Namespace) -> dict[str, Any]:
    """The row of one size."""
    torch.manual_seed(0)
    images = torch.randn(BATCH_SIZE, 3, side_of_images, side_of_images)
    targets = torch.randint(NUM_CLASSES, (BATCH_SIZE, side_of_images, side_of_images))
    targets[:, side_of_images - side_of_images // 8 :] = IGNORED
    names = [WITHOUT, *TERMS]
    steps = {name: make_step(name, (images, targets)) for name in (names[::7] if options.smoke else names)}
    for step in steps.values():
        clock(step, 'cpu')
    memory = {name: growth(step) for name, step in steps.items()}
    samples = interleave(steps, options.repeats, shortest=0.0, warmups=0)
    size = {'image': side_of_images, 'batch': BATCH_SIZE}
    ratios = {name: value / memory[WITHOUT] for name, value in memory.items()}
    return make_row(size, samples, WITHOUT, growth_bytes=memory, memory_ratio=ratios)


def main() -> None:
    """Runs one table."""
    def_logger.setLevel('WARNING')
    options = make_parser(__doc__ or '', ['480', '240']).parse_args()
    torch.set_num_threads(options.threads)
    use_clock(options.clock)
    options.repeats = options.repeats or (2 if options.smoke else 5)
    row = run(64 if options.smoke else int(options.table), options)
    print_row(row, header=True)
    for name, ratio in row['memory_ratio'].items():
        print(f'<!-- memory, {name}: {row["growth_bytes"][name] / 2**20:.0f} MiB, {ratio:.2f} -->')
    finish(options, [row])


if __name__ == '__main__':
    main()
