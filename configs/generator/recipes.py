"""Data and training of the experiments."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from configs.generator.text import call, compose, datasets, step


@dataclass(frozen=True)
class Recipe:
    """Data and training of a set of experiments.

    Attributes:
        name: Name of the data, the folder of its YAMLs.
        title: The same for a reader.
        datasets: Its ``datasets:`` in YAML, with the anchors ``train``, ``test`` and perhaps ``val``.
        num_classes: Number of classes.
        num_epochs: Epochs.
        batch_size: Images a step.
        optimizer: Key and arguments.
        scheduler: Key and arguments.
        kd: Temperature and weight of the cross entropy in ``KDLoss``.
        slow_lr: Learning rate of the models that are ``is_slow``.
        validation: Alias of the data set that chooses the best epoch.
        teachers: Folder of trained teachers under ``resource/ckpt``, if it is another recipe's.
        has_published_weights: Whether torchvision's and timm's weights are of this data.
        root: Folder under ``configs``.
    """

    name: str
    title: str
    datasets: str
    num_classes: int
    num_epochs: int
    batch_size: int
    optimizer: tuple[str, dict[str, Any]]
    scheduler: tuple[str, dict[str, Any]]
    kd: tuple[float, float] = (4.0, 0.1)
    slow_lr: float = 0.01
    validation: str = '*test'
    teachers: str | None = None
    has_published_weights: bool = True
    root: str = 'experiments'

    def folder(self, method: str) -> str:
        """Folder of a method's YAMLs and, under ``resource/ckpt``, of what they write."""
        return f'{self.name}/{method}'


def cifar(num_classes: int, imbalance: int | None = None) -> str:
    """CIFAR, or its long-tailed selection; validation and test are the test images, as in the literature."""
    means = {10: [0.4914, 0.4822, 0.4465], 100: [0.5071, 0.4867, 0.4408]}[num_classes]
    stds = {10: [0.2470, 0.2435, 0.2616], 100: [0.2675, 0.2565, 0.2761]}[num_classes]
    key, root = f'torchvision.datasets.CIFAR{num_classes}', f'./resource/dataset/cifar{num_classes}'
    end = (step('ToTensor'), step('Normalize', mean=means, std=stds))
    augment = (step('RandomCrop', size=32, padding=4), step('RandomHorizontalFlip', p=0.5))
    train = call(key, root=root, train=True, download=True, transform=compose(*augment, *end))
    if imbalance is not None:
        train = call('trg_torchdistill.datasets.LongTailed', imbalance=imbalance, seed=0, dataset=train)
    return datasets(train=train, test=call(key, root=root, train=False, download=True, transform=compose(*end)))


IMAGENET = './resource/dataset/ilsvrc2012'
IMAGENET_END = (
    step('ToTensor'),
    step('Normalize', mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
)
IMAGENET_TEST = compose(step('Resize', size=256), step('CenterCrop', size=224), *IMAGENET_END)
IMAGENET_AUGMENT = (step('RandomResizedCrop', size=224), step('RandomHorizontalFlip', p=0.5))
VIT_AUGMENT = (*IMAGENET_AUGMENT, step('RandAugment', num_ops=2, magnitude=9))
COLORS = step('ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4)


def imagenet(*train: str) -> str:
    """ImageNet in folders of classes."""
    return datasets(
        train=call('torchvision.datasets.ImageFolder', root=f'{IMAGENET}/train', transform=compose(*train)),
        test=call('torchvision.datasets.ImageFolder', root=f'{IMAGENET}/val', transform=IMAGENET_TEST),
    )


def imagenet_lt() -> str:
    """ImageNet-LT by its three lists."""
    augment = compose(*IMAGENET_AUGMENT, COLORS, *IMAGENET_END)
    transforms = {'train': augment, 'val': IMAGENET_TEST, 'test': IMAGENET_TEST}
    lists = {split: f'./resource/dataset/imagenet_lt/ImageNet_LT_{split}.txt' for split in transforms}
    key = 'trg_torchdistill.datasets.ImageNetLT'
    built = {split: call(key, root=IMAGENET, list_file=lists[split], transform=transforms[split]) for split in lists}
    return datasets(**built)


def sgd(lr: float, weight_decay: float) -> tuple[str, dict[str, Any]]:
    """SGD with momentum."""
    return 'SGD', {'lr': lr, 'momentum': 0.9, 'weight_decay': weight_decay}


def multi_step(milestones: list[int], gamma: float) -> tuple[str, dict[str, Any]]:
    """Steps of the learning rate."""
    return 'MultiStepLR', {'milestones': milestones, 'gamma': gamma}


COSINE = ('CosineAnnealingLR', {'T_max': '*num_epochs'})
CRD = {
    'num_epochs': 240,
    'batch_size': 64,
    'optimizer': sgd(0.05, 0.0005),
    'scheduler': multi_step([150, 180, 210], 0.1),
}
LDAM = {
    'num_epochs': 200,
    'batch_size': 128,
    'optimizer': sgd(0.1, 0.0002),
    'scheduler': multi_step([160, 180], 0.01),
}
ADAMW = {'optimizer': ('AdamW', {'lr': 0.00025, 'weight_decay': 0.05}), 'scheduler': COSINE}
IMAGENET_KD = (1.0, 0.5)

CIFAR100 = Recipe('cifar100', 'CIFAR-100', cifar(100), 100, **CRD)
CIFAR10 = Recipe('cifar10', 'CIFAR-10', cifar(10), 10, **CRD)
LONG_TAILED = [
    Recipe(
        f'cifar{classes}_lt{ratio}', f'CIFAR-{classes}-LT, imbalance {ratio}', cifar(classes, ratio), classes, **LDAM
    )
    for classes in (100, 10)
    for ratio in (10, 50, 100)
]
ILSVRC = Recipe(
    'imagenet',
    'ImageNet',
    imagenet(*IMAGENET_AUGMENT, *IMAGENET_END),
    1000,
    100,
    256,
    sgd(0.1, 0.0001),
    multi_step([30, 60, 90], 0.1),
    IMAGENET_KD,
)
ILSVRC_LT = Recipe(
    'imagenet_lt',
    'ImageNet-LT',
    imagenet_lt(),
    1000,
    90,
    256,
    sgd(0.1, 0.0005),
    COSINE,
    IMAGENET_KD,
    validation='*val',
    has_published_weights=False,
)
ILSVRC_VIT = Recipe(
    'imagenet_vit',
    'ImageNet',
    imagenet(*VIT_AUGMENT, *IMAGENET_END, step('RandomErasing', p=0.25)),
    1000,
    300,
    256,
    **ADAMW,
    kd=IMAGENET_KD,
)
HUB = replace(CIFAR100, root='sample', name='hub', teachers='cifar100/ce', **ADAMW)
