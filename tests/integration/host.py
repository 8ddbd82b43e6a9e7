"""The one YAML harness: texts of `train:` blocks, and torchdistill's own boxes around tiny models; nothing is mocked.

A test writes the parts of the YAML that matter to it; :func:`stage` and, for boxes in memory, :func:`train_yaml` put
them into a whole block. :mod:`tiny` makes whole files of the blocks, for the commands.
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

LAYER4 = "forward_hook: {input: [], output: ['layer4']}"
BOTH_PROCESSES = "pre_epoch_process: 'pre_epoch_process_with_trg'\npost_epoch_process: 'post_epoch_process_with_trg'\n"
STEP_LR = "scheduler: {key: 'StepLR', kwargs: {step_size: 1, gamma: 0.5}}\n"
SGD = "optimizer: {key: 'SGD', kwargs: {lr: 0.05, momentum: 0.9}}\n"
SIDES = """
teacher: {forward_proc: 'forward_batch_only', requires_grad: False}
student: {forward_proc: 'forward_batch_only'}
"""
HOOKED = SIDES.replace("'forward_batch_only'", "'forward_batch_only', forward_hook: {input: [], output: ['layer2']}")
CE = """
ce:
  criterion: {key: 'CrossEntropyLoss', kwargs: {reduction: 'mean'}}
  criterion_wrapper:
    key: 'SimpleLossWrapper'
    kwargs: {input: {is_from_teacher: False, module_path: '.', io: 'output'}, target: {uses_label: True}}
  weight: 1.0
"""
KD = """
kd:
  criterion:
    key: 'KDLoss'
    kwargs: {student_module_path: '.', student_module_io: 'output', teacher_module_path: '.',
             teacher_module_io: 'output', temperature: 4.0, alpha: 0.5, reduction: 'batchmean'}
  weight: 1.0
"""
SRD_TERM = """
srd:
  criterion: {key: 'MSELoss', kwargs: {reduction: 'mean'}}
  criterion_wrapper:
    key: 'SimpleLossWrapper'
    kwargs:
      input: {is_from_teacher: False, module_path: 'norm_layer', io: 'output'}
      target: {is_from_teacher: True, module_path: 'norm_layer', io: 'output'}
  weight: 1.0
"""


def indent(text, spaces):
    """Dedented lines without the empty ones, moved to the right."""
    return ''.join(' ' * spaces + line + '\n' for line in textwrap.dedent(text).splitlines() if line.strip())


def loaders(batch_size=8, val_batch_size=16, sampler='RandomSampler'):
    return f"""
train_data_loader:
  dataset_id: 'train'
  sampler: {{class_or_func: !import_get {{key: 'torch.utils.data.{sampler}'}}, kwargs: }}
  kwargs: {{batch_size: {batch_size}, num_workers: 0}}
val_data_loader:
  dataset_id: 'val'
  sampler: {{class_or_func: !import_get {{key: 'torch.utils.data.SequentialSampler'}}, kwargs: }}
  kwargs: {{batch_size: {val_batch_size}, num_workers: 0}}
"""


LOADERS = loaders()


def stage(num_epochs, terms, sides=SIDES, optimizer=SGD, loaders=LOADERS, more=''):
    """The text of one stage, or of all of `train:`."""
    criterion = f"criterion:\n  key: 'WeightedSumLoss'\n  kwargs:\n    sub_terms:\n{indent(terms, 6)}"
    return f'num_epochs: {num_epochs}\n{loaders}{sides}{optimizer}{more}{criterion}'


def stages(*texts):
    return ''.join(f'stage{number}:\n{indent(text, 2)}' for number, text in enumerate(texts, 1))


def trg_term(student='layer4', teacher='layer4', options='', name='trg', key='TRGLoss'):
    """YAML of one of our terms between two hooked outputs; `options` are further lines under its `kwargs:`."""
    return (
        f"{name}:\n  criterion:\n    key: '{key}'\n    kwargs:\n"
        f"      student_module_path: '{student}'\n      student_module_io: 'output'\n"
        f"      teacher_module_path: '{teacher}'\n      teacher_module_io: 'output'\n"
        f'{indent(options, 6)}  weight: 1.0\n'
    )


def projection(name='layer4', feature='layer4', in_features=8, out_features=12):
    """YAML of a student with one projector, hooked as the README says."""
    return textwrap.dedent(f"""\
        auxiliary_model_wrapper:
          key: 'Student4TRG'
          kwargs:
            projectors:
              {name}: {{path: 'student_model.{feature}', io: 'output',
                        in_features: {in_features}, out_features: {out_features}}}
        forward_hook: {{input: [], output: ['student_model.{feature}', 'projectors.{name}']}}
        """)


def train_yaml(terms=None, teacher=LAYER4, student=LAYER4, top='', optimizer=SGD, num_epochs=2, batch_size=8):
    """YAML text of a `train:` block for a box in memory, with a cross-entropy term beside `terms`."""
    teacher = f"teacher:\n  forward_proc: 'forward_logits_only'\n  requires_grad: False\n{indent(teacher, 2)}"
    student = f"student:\n  forward_proc: 'forward_logits_only'\n{indent(student, 2)}"
    in_order = loaders(batch_size, 3, 'SequentialSampler')
    terms = CE + (trg_term() if terms is None else terms)
    return stage(num_epochs, terms, top + teacher + student, f'{optimizer}\n', in_order)


def full_method(terms='', **blocks):
    """YAML text of the full method: a projector, the dynamic temperature, both processes; `terms` are further terms."""
    options = """
        projection_module_path: 'projectors.layer4'
        tokens_per_image: null
        temperature: {start: 0.5, end: 0.1, schedule: 'cosine'}
        """
    trg = trg_term('student_model.layer4', options=options)
    return train_yaml(trg + textwrap.dedent(terms), student=projection(), **{'top': BOTH_PROCESSES, **blocks})


def load(tmp_path, text):
    """Loads YAML text with the host's own loader."""
    path = tmp_path / 'config.yaml'
    path.write_text(text)
    return load_yaml_file(str(path))


def make_data(num_images=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(num_images, 3, 16, 16, generator=generator)
    return TensorDataset(images, torch.randint(NUM_CLASSES, (num_images,), generator=generator))


def data_sets(num_images=8):
    return {'train': make_data(num_images), 'val': make_data(10, 1)}


def box_from(tmp_path, text, teacher=None, student=None, num_images=8, distributed=False, accelerator=None):
    """The host's distillation box (or its multi-stage box), by default around two small CNNs of different widths."""
    config, models = load(tmp_path, text), (teacher or TinyCnn(12), student or TinyCnn(8))
    return get_distillation_box(*models, data_sets(num_images), config, CPU, None, distributed, 1, accelerator)


def make_training_box(config, model):
    """The host's training box, without a teacher; the block named `student:` of each stage is its `model:`."""
    for block in [config] if 'student' in config else config.values():
        block['model'] = block['student']
    return get_training_box(model, data_sets(), config, CPU, None, False, 1)


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
