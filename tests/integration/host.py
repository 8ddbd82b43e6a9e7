"""Builds torchdistill's own boxes from YAML text, around tiny models and a data set in memory; nothing is mocked.

A test writes the parts of the YAML that matter to it; :func:`train_yaml` puts them into a whole `train:` block.
"""

import textwrap
from types import SimpleNamespace

import torch
from torch import nn
from torch.utils.data import TensorDataset
from torchdistill.common.yaml_util import load_yaml_file
from torchdistill.core.distillation import get_distillation_box
from torchdistill.core.training import get_training_box
from torchvision.models import SwinTransformer, VisionTransformer

from trg_torchdistill.host import relation_losses

CPU = torch.device('cpu')
NUM_CLASSES = 5
BATCH_SIZE = 8

LAYER4 = "forward_hook: {input: [], output: ['layer4']}"
BOTH_PROCESSES = "pre_epoch_process: 'pre_epoch_process_with_trg'\npost_epoch_process: 'post_epoch_process_with_trg'\n"
CE_TERM = """
    ce:
      criterion: {key: 'CrossEntropyLoss', kwargs: {reduction: 'mean'}}
      criterion_wrapper:
        key: 'SimpleLossWrapper'
        kwargs:
          input: {is_from_teacher: False, module_path: '.', io: 'output'}
          target: {uses_label: True}
      weight: 1.0
"""
TRAIN = """
num_epochs: {num_epochs}
{top}
train_data_loader:
  dataset_id: 'train'
  sampler: {{class_or_func: !import_get {{key: 'torch.utils.data.SequentialSampler'}}, kwargs: }}
  kwargs: {{batch_size: {batch_size}, num_workers: 0}}
val_data_loader:
  dataset_id: 'val'
  sampler: {{class_or_func: !import_get {{key: 'torch.utils.data.SequentialSampler'}}, kwargs: }}
  kwargs: {{batch_size: 3, num_workers: 0}}
teacher:
  forward_proc: 'forward_logits_only'
  requires_grad: False
{teacher}
student:
  forward_proc: 'forward_logits_only'
{student}
{optimizer}
criterion:
  key: 'WeightedSumLoss'
  kwargs:
    sub_terms:
{terms}
"""
KD_TERM = """
    kd:
      criterion:
        key: 'KDLoss'
        kwargs:
          student_module_path: '.'
          student_module_io: 'output'
          teacher_module_path: '.'
          teacher_module_io: 'output'
          temperature: 4.0
          alpha: 0.5
          reduction: 'batchmean'
      weight: 1.0
"""
SGD = "optimizer: {key: 'SGD', kwargs: {lr: 0.1, momentum: 0.9}}"


def trg_term(student='layer4', teacher='layer4', options='', name='trg', key='TRGLoss'):
    """YAML of one of our terms between two hooked outputs; `options` are further lines under its `kwargs:`."""
    return (
        f"{name}:\n  criterion:\n    key: '{key}'\n    kwargs:\n"
        f"      student_module_path: '{student}'\n      student_module_io: 'output'\n"
        f"      teacher_module_path: '{teacher}'\n      teacher_module_io: 'output'\n"
        f'{_block(options, 6)}\n  weight: 1.0\n'
    )


def projection(name='layer4', feature='layer4', in_features=8, out_features=12, options=''):
    """YAML of a student with one projector, hooked as the README says."""
    return textwrap.dedent(f"""\
        auxiliary_model_wrapper:
          key: 'Student4TRG'
          kwargs:
            projectors:
              {name}: {{path: 'student_model.{feature}', io: 'output',
                        in_features: {in_features}, out_features: {out_features}}}
            {options}
        forward_hook: {{input: [], output: ['student_model.{feature}', 'projectors.{name}']}}
        """)


def train_yaml(terms=None, teacher=LAYER4, student=LAYER4, top='', optimizer=SGD, num_epochs=2, batch_size=BATCH_SIZE):
    """YAML text of a `train:` block with a cross-entropy term beside `terms`."""
    return TRAIN.format(
        num_epochs=num_epochs,
        top=top,
        batch_size=batch_size,
        teacher=_block(teacher, 2),
        student=_block(student, 2),
        optimizer=optimizer,
        terms=_block(textwrap.dedent(CE_TERM) + (trg_term() if terms is None else terms), 6),
    )


def full_method(terms='', **blocks):
    """YAML text of the full method: a projector, the dynamic temperature, both processes; `terms` are further terms."""
    trg = trg_term(
        'student_model.layer4',
        options="""
            projection_module_path: 'projectors.layer4'
            tokens_per_image: null
            temperature: {start: 0.5, end: 0.1, schedule: 'cosine'}
            """,
    )
    return train_yaml(trg + textwrap.dedent(terms), student=projection(), **{'top': BOTH_PROCESSES, **blocks})


def load(tmp_path, text):
    """Loads YAML text with the host's own loader."""
    path = tmp_path / 'config.yaml'
    path.write_text(text)
    return load_yaml_file(str(path))


def make_data(num_images=BATCH_SIZE, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(num_images, 3, 16, 16, generator=generator)
    return TensorDataset(images, torch.randint(NUM_CLASSES, (num_images,), generator=generator))


def make_box(config, teacher, student, num_images=BATCH_SIZE, distributed=False, seed=0):
    """The host's distillation box (or its multi-stage box) for a loaded `train:` block."""
    data = {'train': make_data(num_images, seed), 'val': make_data(10, seed + 1)}
    return get_distillation_box(teacher, student, data, config, CPU, None, distributed, 1)


def make_training_box(config, model):
    """The host's training box, without a teacher; the block named `student:` is its `model:`."""
    config = {**config, 'model': config['student']}
    return get_training_box(model, {'train': make_data(), 'val': make_data(10, 1)}, config, CPU, None, False, 1)


def box_from(tmp_path, text, teacher=None, student=None, **options):
    """From YAML text to a box, by default around two small CNNs of different widths."""
    return make_box(load(tmp_path, text), teacher or TinyCnn(12), student or TinyCnn(8), **options)


def train_epoch(box, epoch, after_step=None):
    """One epoch, step for step as in torchdistill's example trainer; returns the losses."""
    losses = []
    box.pre_epoch_process(epoch=epoch)
    for images, targets, supp_dict in box.train_data_loader:
        loss = box.forward_process(images, targets, supp_dict)
        box.post_forward_process(loss=loss)
        losses.append(loss.item())
        if after_step is not None:
            after_step(box)
    evaluate(box.student_model if hasattr(box, 'student_model') else box.model, box.val_data_loader)
    box.post_epoch_process()
    return losses


@torch.inference_mode()
def evaluate(model, data_loader):
    """The example trainer's evaluation: the wrapped student itself gets the images alone, in eval mode."""
    model.eval()
    return [model(images) for images, _ in data_loader]


def one_step(box, epoch=0):
    """The first training step of an epoch; returns the loss."""
    box.pre_epoch_process(epoch=epoch)
    images, targets, supp_dict = next(iter(box.train_data_loader))
    loss = box.forward_process(images, targets, supp_dict)
    box.post_forward_process(loss=loss)
    return loss.detach()


def our_losses(box):
    return relation_losses(box.criterion)


def weighted_terms(box):
    """The summed value of all our terms in the last step, before their weights."""
    return sum(float(term) for loss in our_losses(box).values() for _, term in loss.terms().values())


class TinyCnn(nn.Module):
    """Feature maps `layer3` [B, width, 8, 8] and `layer4` [B, width, side, side] of 16 x 16 images."""

    def __init__(self, width=8, side=4, dropout=0.0):
        super().__init__()
        self.layer3 = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.layer4 = nn.Sequential(nn.Conv2d(width, width, 3, 8 // side, 1), nn.BatchNorm2d(width))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout))
        self.fc = nn.Linear(width, NUM_CLASSES)

    def forward(self, images):
        return self.fc(self.pool(self.layer4(self.layer3(images)).relu()))


class TinyDeit(TinyCnn):
    """Two heads in training, their mean in evaluation, like DeiT's distilled models."""

    def __init__(self, width=8):
        super().__init__(width)
        self.head_dist = nn.Linear(width, NUM_CLASSES)

    def forward(self, images):
        pooled = self.pool(self.layer4(self.layer3(images)).relu())
        heads = self.fc(pooled), self.head_dist(pooled)
        return heads if self.training else (heads[0] + heads[1]) / 2


class TinyHuggingFace(TinyCnn):
    """An object with `.logits`, like the classifiers of Hugging Face."""

    def forward(self, images):
        return SimpleNamespace(loss=None, logits=super().forward(images))


def tiny_vit(width=16, patch_size=4):
    """torchvision's VisionTransformer: `encoder.ln` gives [B, 1 + (16 / patch_size)^2, width]."""
    model = VisionTransformer(16, patch_size, 1, 2, width, 2 * width, num_classes=NUM_CLASSES)
    nn.init.normal_(model.heads.head.weight, std=0.1)
    return model


def tiny_swin(width=8):
    """torchvision's SwinTransformer: `features.3` gives a map of channels last, [B, 4, 4, 2 * width]."""
    return SwinTransformer([2, 2], width, [1, 1], [1, 2], [2, 2], num_classes=NUM_CLASSES)


def _block(text, indent):
    return textwrap.indent(textwrap.dedent(text).strip('\n'), ' ' * indent)
