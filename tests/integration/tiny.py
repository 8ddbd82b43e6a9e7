"""A data set, a model and YAMLs so small that an epoch takes a fraction of a second; YAMLs name them by `tiny.`."""

import json
import sys

import torch
from host import CE, KD, LOADERS, SGD, SIDES, STEP_LR, indent, stage, stages
from torch import nn
from torch.utils.data import Dataset
from torchdistill.losses.registry import register_mid_level_loss
from torchdistill.models.registry import register_model

from trg_torchdistill.cli.main import main

__all__ = ['CE', 'KD', 'LOADERS', 'SGD', 'SIDES', 'STEP_LR', 'stage', 'stages']  # tests take them from here

NUM_CLASSES = 6
ITEMS_AN_EPOCH = 24

QUICK = ('--input-size', '8', '--steps', '1')

items_until_interrupt = None


class Blobs(Dataset):
    """Each class has its own pattern, of 3 x 8 x 8; training images get fresh noise from torch's global generator."""

    def __init__(self, size, noise=1.0, counts=None, image_size=8):
        generator = torch.Generator().manual_seed(0)
        patterns = torch.randn(NUM_CLASSES, 3, image_size, image_size, generator=generator)
        self.targets = [index % NUM_CLASSES for index in range(size)]
        self.images = patterns[self.targets] + torch.randn(size, *patterns.shape[1:], generator=generator)
        self.noise = noise
        if counts is not None:
            self.class_counts = counts

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        if self.noise == 0:
            return self.images[index], self.targets[index]
        global items_until_interrupt
        if items_until_interrupt is not None:
            items_until_interrupt -= 1
            if items_until_interrupt < 0:
                raise KeyboardInterrupt
        return self.images[index] + self.noise * torch.randn(self.images[index].shape), self.targets[index]


class NeverRight(Blobs):
    """Images of a class that is not trained."""

    def __getitem__(self, index):
        return self.images[index], NUM_CLASSES


class TinyNet(nn.Module):
    """Two blocks with batch normalisation and dropout, so that train and eval mode differ."""

    def __init__(self, width=4, num_classes=NUM_CLASSES, momentum=0.1):
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width, momentum=momentum), nn.ReLU())
        self.layer2 = nn.Sequential(
            nn.Conv2d(width, width, 3, 1, 1), nn.BatchNorm2d(width, momentum=momentum), nn.Dropout(0.2)
        )
        self.fc = nn.Linear(width, num_classes)

    def forward(self, images):
        return self.fc(self.layer2(self.layer1(images)).mean((2, 3)))


@register_model
def tiny_net(width=4, num_classes=NUM_CLASSES, momentum=0.1):
    return TinyNet(width, num_classes, momentum)


@register_model
class tiny_pair_net(TinyNet):
    """(logits, feature), as many repositories return it; with a `scale` not even a layer tells which is the feature."""

    def __init__(self, scale=1, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale

    def forward(self, images):
        feature = self.layer2(self.layer1(images)).mean((2, 3))
        return self.fc(self.scale * feature), feature


@register_model
def vgg11():
    """A model by a name that torchvision has."""
    return tiny_net()


@register_model
class tiny_column_net(TinyNet):
    """Patches whose `layer2` stands mirrored and transposed."""

    def __init__(self, width=4, num_classes=NUM_CLASSES, momentum=0.1):
        super().__init__(width, num_classes, momentum)
        self.layer1 = nn.Sequential(nn.Conv2d(3, width, 2, 2), nn.BatchNorm2d(width, momentum=momentum))
        self.layer2 = nn.Sequential(nn.Conv2d(width, width, 1), Transposed())


class Transposed(nn.Module):
    def forward(self, cells):
        return cells.flip(3).transpose(2, 3)


@register_mid_level_loss
class MemoryLoss(nn.Module):
    """Distance to a running mean of the logits: a term whose buffer changes in every step, as CRD's memory does."""

    def __init__(self):
        super().__init__()
        self.register_buffer('mean', torch.randn(NUM_CLASSES))

    def forward(self, student_io_dict, teacher_io_dict, targets):
        logits = student_io_dict['.']['output']
        self.mean.lerp_(logits.detach().mean(0), 0.1)
        return (logits - self.mean).square().mean()


@register_mid_level_loss
class LateNan(nn.Module):
    """Zero, and NaN from the given step on."""

    def __init__(self, step):
        super().__init__()
        self.steps_left = step

    def forward(self, student_io_dict, teacher_io_dict, targets):
        self.steps_left -= 1
        return 0 * student_io_dict['.']['output'].sum() + (0.0 if self.steps_left >= 0 else float('nan'))


MEMORY = "memory: {criterion: {key: 'MemoryLoss', kwargs: {}}, weight: 0.1}\n"
TRG_SIDES = """
pre_epoch_process: 'pre_epoch_process_with_trg'
teacher:
  forward_proc: 'forward_batch_only'
  requires_grad: False
  forward_hook: {input: [], output: ['layer2']}
student:
  forward_proc: 'forward_batch_only'
  auxiliary_model_wrapper:
    key: 'Student4TRG'
    kwargs: {projectors: {p: {path: 'student_model.layer2', io: 'output', in_features: 4, out_features: 6}}}
  forward_hook: {input: [], output: ['student_model.layer2', 'projectors.p']}
"""
TRG = """
trg:
  criterion:
    key: 'TRGLoss'
    kwargs: {student_module_path: 'student_model.layer2', student_module_io: 'output', teacher_module_path: 'layer2',
             teacher_module_io: 'output', projection_module_path: 'projectors.p', num_neighbors: 3,
             tokens_per_image: 4, temperature: {start: 0.5, end: 0.1, schedule: 'cosine'}}
  weight: 0.5
context:
  criterion:
    key: 'TokenContextualLoss'
    kwargs: {student_module_path: 'student_model.layer2', student_module_io: 'output', teacher_module_path: 'layer2',
             teacher_module_io: 'output'}
  weight: 0.5
"""


def whole_yaml(folder, train, teacher=True, train_kwargs='size: 24', dst_ckpt=None):
    """The text of a whole YAML; the student's `dst_ckpt` is `folder/student.pt`."""
    teacher_model = "  teacher_model: {key: 'tiny_net', kwargs: {width: 6}, src_ckpt: }\n" if teacher else ''
    student_key = 'student_model' if teacher else 'model'
    return f"""
dependencies:
  - name: 'tiny'
  - name: 'trg_torchdistill'
datasets:
  train: !import_call {{key: 'tiny.Blobs', init: {{kwargs: {{{train_kwargs}}}}}}}
  val: !import_call {{key: 'tiny.Blobs', init: {{kwargs: {{size: 48, noise: 0}}}}}}
models:
{teacher_model}  {student_key}:
    key: 'tiny_net'
    kwargs: {{width: 4}}
    src_ckpt:
    dst_ckpt: '{dst_ckpt or folder / 'student.pt'}'
train:
  log_freq: 10
{indent(train, 2)}
test:
  test_data_loader:
    dataset_id: 'val'
    sampler: {{class_or_func: !import_get {{key: 'torch.utils.data.SequentialSampler'}}, kwargs: }}
    kwargs: {{batch_size: 16, num_workers: 0}}
"""


def write(folder, text, name='config.yaml'):
    """Writes the YAML and returns its path as a word of a command line."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    return str(path)


def train(*words):
    return main(['train', *words])


def check(folder, capsys, train, *words, change=('', ''), **options):
    """The exit code and the JSON object of `check` for the text of a `train:` block; `change` replaces in the YAML."""
    text = whole_yaml(folder, train, **options)
    assert change[0] in text
    text = text.replace(*change, 1) if change[0] else text
    capsys.readouterr()
    code = main(['check', write(folder, text), '--json', *QUICK, *words])
    return code, json.loads(capsys.readouterr().out)


def kinds(report):
    return [warning['kind'] for warning in report['warnings']]


def terms(report, position=0):
    return {term['name']: term for term in report['stages'][position]['terms']}


def lines_of(folder):
    return [json.loads(line) for line in (folder / 'student' / 'metrics.jsonl').read_text().splitlines()]


def without_times(lines):
    return [{k: v for k, v in line.items() if k not in ('seconds', 'images_per_second')} for line in lines]


def comparable(value):
    """Nested state with tensors as lists and without what may differ: times, and the YAML with its own paths."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        ignored = ('config_text', 'seconds', 'images_per_second')
        return {key: comparable(item) for key, item in value.items() if key not in ignored}
    if isinstance(value, (list, tuple)):
        return [comparable(item) for item in value]
    return value


def last_state(folder):
    return torch.load(folder / 'student' / 'last.pt', weights_only=True)


def write_training(folder, text, **options):
    yaml_text = whole_yaml(folder, text, **options)
    return write(folder, yaml_text.replace('width: 4', 'width: 6') if 'layer1' in text else yaml_text)


def write_taught(folder, name, text, change=('', ''), **options):
    """Writes a YAML into `folder/name` whose teacher has the weights of `folder/teacher.pt`; makes these if missing."""
    file = folder / 'teacher.pt'
    if not file.exists():
        torch.save(tiny_net(6).state_dict(), file)
    written = whole_yaml(folder / name, text, **options).replace('src_ckpt: }', f"src_ckpt: '{file}'}}", 1)
    assert change[0] in written
    return write(folder / name, written.replace(*change, 1) if change[0] else written)


def assert_a_resume_is_exact(folder, monkeypatch, text, *words):
    """Trains once without a stop, once with Ctrl-C in the third of four epochs and `--resume`; returns both folders."""
    whole, parts = folder / 'whole', folder / 'parts'
    words = ('--seed', '3', *words)
    assert train(write_training(whole, text), *words) == 0
    config = write_training(parts, text)
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[__name__], 'items_until_interrupt', round(2.4 * ITEMS_AN_EPOCH))
        assert train(config, *words) == 130
    assert last_state(parts)['progress']['epochs_done'] == 2
    torch.manual_seed(99)
    assert train(config, *words, '--resume') == 0
    assert len(lines_of(whole)) == 4
    assert without_times(lines_of(parts)) == without_times(lines_of(whole))
    assert comparable(last_state(parts)) == comparable(last_state(whole))
    return whole, parts
