"""The YAMLs of the experiments run: their data sets are built and read, and each of them trains two steps."""

import io
import json
from pathlib import Path

import pytest
import torch
import torchvision
import yaml
from PIL import Image
from torchdistill.common import yaml_util
from torchdistill.datasets.util import build_data_loader

from trg_torchdistill.cli.main import main

FOLDER = Path(__file__).parents[2] / 'configs'
CONFIGS = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob('*.yaml'))
EXPERIMENTS = [name for name in CONFIGS if not name.startswith(('sample/digits/', 'official/'))]
# What `check` may say of a YAML whose teacher is untrained.
EXPECTED_NOTICES = {'teacher_weights'}


class FakeCifar:
    """As many labels as CIFAR has, and one picture for all of them."""

    num_classes = 10

    def __init__(self, root, train, download, transform):
        self.root, self.download, self.transform = root, download, transform
        size = (50_000 if train else 10_000) // self.num_classes
        self.classes = [str(label) for label in range(self.num_classes)]
        self.targets = [label for label in range(self.num_classes) for _ in range(size)]

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return self.transform(Image.new('RGB', (32, 32), (index % 256, 0, 0))), self.targets[index]


class FakeCifar100(FakeCifar):
    num_classes = 100


@pytest.fixture
def data(tmp_path, monkeypatch):
    """CIFAR of one picture, and folders and lists of ImageNet with one small file a class."""
    monkeypatch.setattr(torchvision.datasets, 'CIFAR10', FakeCifar)
    monkeypatch.setattr(torchvision.datasets, 'CIFAR100', FakeCifar100)
    monkeypatch.chdir(tmp_path)
    lists = tmp_path / 'resource/dataset/imagenet_lt'
    lists.mkdir(parents=True)
    entries = []
    for label in range(1000):
        for split in ('train', 'val'):
            folder = tmp_path / f'resource/dataset/ilsvrc2012/{split}/n{label:08}'
            folder.mkdir(parents=True)
            (folder / 'image.JPEG').write_bytes(PICTURE)
        entries.append(f'n{label:08}/image.JPEG {label}')
    for split, parent in (('train', 'train'), ('val', 'train'), ('test', 'val')):
        text = ''.join(f'{parent}/{entry}\n' for entry in entries)
        (lists / f'ImageNet_LT_{split}.txt').write_text(text)


def _picture():
    """A JPEG file of 40 x 30 pixels."""
    file = io.BytesIO()
    Image.new('RGB', (40, 30), (200, 100, 0)).save(file, 'JPEG')
    return file.getvalue()


PICTURE = _picture()


def long_tailed(num_classes, largest, ratio):
    """The literature's profile of CIFAR-LT."""
    return [int(largest * (1 / ratio) ** (label / (num_classes - 1)) + 1e-6) for label in range(num_classes)]


# A YAML for each set of data: images of training and test, their side, and the images of each class if they differ.
DATA = {
    'experiments/cifar100/trg/resnet20_from_resnet56.yaml': (50_000, 10_000, 32, None),
    'experiments/cifar10/trg/resnet20_from_resnet56.yaml': (50_000, 10_000, 32, None),
    'experiments/cifar100_lt10/trg/resnet20_from_resnet56.yaml': (19_573, 10_000, 32, long_tailed(100, 500, 10)),
    'experiments/cifar100_lt50/trg/resnet20_from_resnet56.yaml': (12_608, 10_000, 32, long_tailed(100, 500, 50)),
    'experiments/cifar100_lt100/trg/resnet20_from_resnet56.yaml': (10_847, 10_000, 32, long_tailed(100, 500, 100)),
    'experiments/cifar10_lt10/trg/resnet20_from_resnet56.yaml': (20_431, 10_000, 32, long_tailed(10, 5000, 10)),
    'experiments/cifar10_lt50/trg/resnet20_from_resnet56.yaml': (13_996, 10_000, 32, long_tailed(10, 5000, 50)),
    'experiments/cifar10_lt100/trg/resnet20_from_resnet56.yaml': (12_406, 10_000, 32, long_tailed(10, 5000, 100)),
    'experiments/imagenet/trg/resnet18_from_resnet34.yaml': (1000, 1000, 224, None),
    'experiments/imagenet_lt/trg/resnet18_from_resnet50.yaml': (1000, 1000, 224, None),
    'experiments/imagenet_vit/trg/swin_t_from_swin_s.yaml': (1000, 1000, 224, None),
    'sample/hub/trg/timm_vit_from_resnet56.yaml': (50_000, 10_000, 32, None),
}


@pytest.mark.parametrize('name', CONFIGS)
def test_no_key_is_given_twice(name):
    nodes = [yaml.compose((FOLDER / name).read_text())]
    for node in nodes:
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value]
            assert len(keys) == len(set(keys))
            nodes += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value


def test_every_set_of_data_is_read_below():
    assert {name.rsplit('/', 2)[0] for name in DATA} == {name.rsplit('/', 2)[0] for name in EXPERIMENTS}


@pytest.mark.slow
def test_data_sets_are_built_and_read_by_the_host(data):
    """All in one test, to write the files once."""
    for name, (num_train, num_test, side, counts) in DATA.items():
        config = yaml_util.load_yaml_file(str(FOLDER / name))
        train, test = config['train'], config['test']
        for loader, size in (
            (train['train_data_loader'], num_train),
            (train['val_data_loader'], num_test),
            (test['test_data_loader'], num_test),
        ):
            dataset = config['datasets'][loader['dataset_id']]
            assert len(dataset) == size
            loader['kwargs'].update(num_workers=0, pin_memory=False, batch_size=2)
            images, _ = next(iter(build_data_loader(dataset, loader, distributed=False)))
            assert (images.shape, images.dtype) == ((2, 3, side, side), torch.float32)
        if counts is not None:
            assert config['datasets'][train['train_data_loader']['dataset_id']].class_counts == counts


@pytest.mark.slow
@pytest.mark.experiments
@pytest.mark.parametrize('name', EXPERIMENTS)
def test_it_trains_two_steps(name, capsys):
    """Models at full size, random images of the right size; the first step is looked at, one more is timed."""
    assert main(['check', str(FOLDER / name), '--json', '--steps', '1', '--batch-size', '2']) == 0
    report = json.loads(capsys.readouterr().out)
    assert report['ok']
    assert {notice['kind'] for notice in report['warnings']} <= EXPECTED_NOTICES
