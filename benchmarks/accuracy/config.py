"""The whole torchdistill YAML of one run of the accuracy grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ablations import UNCHANGED, Variant
from methods import METHODS, Config, Weights, method_named, train_sides
from recipes import FULL, Recipe

MEAN, STD = [0.4914, 0.4822, 0.4465], [0.247, 0.2435, 0.2616]
PADDING = 4
SETTINGS = {
    'whole': None,
    'balanced': {'imbalance': 1, 'num_samples': 10000},
    'longtailed': {'imbalance': 100},
    'lowdata': {'imbalance': 1, 'num_samples': 4500},
    # Those of `lasting.py`: as many images balanced as the long tail of CIFAR-10's 45,000 has.
    'cnn': {'imbalance': 1, 'num_samples': 11160},
    'vit': {'imbalance': 1, 'num_samples': 11160},
    'cnn_lt': {'imbalance': 100},
    'vit_lt': {'imbalance': 100},
    'cnn_7': {'imbalance': 1, 'num_samples': 7812, 'classes': 7},
    'vit_7': {'imbalance': 1, 'num_samples': 7812, 'classes': 7},
    **dict.fromkeys((*FULL, 'wrn_40_2_vit')),  # all images
}
OPTIMIZERS = {
    'SGD': {'momentum': 0.9, 'weight_decay': 5e-4, 'nesterov': True},
    'AdamW': {'weight_decay': 0.05},
}
MODULES = {'TRGLossOfOtherImages': 'controls', 'ManifoldLoss': 'manifold'}  # that register a loss


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        setting: Key of :data:`SETTINGS`.
        method: Key of ``METHODS``, a name of what ``variant`` makes of its method, or ``teacher``.
        seed: Seed of the training, and index of the cycle of a teacher; the images of a setting do not depend on it.
        weights: Weights of the method's terms.
        kd: (alpha, temperature) of the ``KDLoss``.
        variant: What is changed, for an ablation.
    """

    setting: str
    method: str
    seed: int
    weights: Weights = ()
    kd: Weights = ()
    variant: Variant = UNCHANGED

    @property
    def name(self) -> str:
        """Name of the folder of the run."""
        parts = [self.setting, self.method.replace('+', '_'), *(f'{weight:g}' for weight in self.weights)]
        parts += [self.variant.name.replace(' ', '_')] if self.variant.name else []
        return '-'.join([*parts, f'seed{self.seed}'])

    def batch_size(self, recipe: Recipe) -> int:
        """Images a step."""
        return self.variant.batch_size or recipe.batch_size


class _Tagged(dict[str, Any]):
    """A mapping under one of the host's YAML tags."""

    tag = '!import_call'


class _Got(_Tagged):
    tag = '!import_get'


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent(dumper: yaml.SafeDumper, value: _Tagged) -> yaml.MappingNode:
    return dumper.represent_mapping(value.tag, dict(value))


for _kind in (_Tagged, _Got):
    _Dumper.add_representer(_kind, _represent)
_Dumper.add_representer(tuple, lambda dumper, value: dumper.represent_list(list(value)))


def _call(key: str, **kwargs: Any) -> _Tagged:
    return _Tagged(key=key, init={'kwargs': kwargs})


@dataclass(frozen=True)
class Source:
    """Where a training gets its images from.

    Attributes:
        data: Folder that ``prepare.py`` made.
        num_workers: Processes that read files.
        device: Device that holds the images, decoded before; None to read a file for each image.
    """

    data: Path
    num_workers: int = 0
    device: str | None = None

    def images(self, split: str, subset: Config | None) -> _Tagged:
        """The data set of a split: what a setting takes of ``train``, augmented; all of its classes of the others."""
        trains, subset = split == 'train', dict(subset or {})
        if self.device is None:
            dataset = _call('torchvision.datasets.ImageFolder', **self._files(split, trains))
        else:
            dataset = _call('arrays.StoredImages', file=str(self.data / f'{split}.pt'))
        if 'classes' in subset:
            dataset = _call('selection.OfFirstClasses', dataset=dataset, num_classes=subset.pop('classes'))
        if trains and subset:
            dataset = _call('trg_torchdistill.datasets.LongTailed', dataset=dataset, **subset)
        if self.device is None:
            return dataset
        options = {'padding': PADDING if trains else None, 'device': self.device}
        return _call('arrays.Batches', dataset=dataset, mean=MEAN, std=STD, **options)

    def _files(self, split: str, augmented: bool) -> Config:
        transforms = [
            _call('torchvision.transforms.ToTensor'),
            _call('torchvision.transforms.Normalize', mean=MEAN, std=STD),
        ]
        if augmented:
            crop = _call('torchvision.transforms.RandomCrop', size=32, padding=PADDING)
            transforms = [crop, _call('torchvision.transforms.RandomHorizontalFlip'), *transforms]
        transform = _call('torchvision.transforms.Compose', transforms=transforms)
        return {'root': str(self.data / split), 'transform': transform}

    def loader(self, split: str, batch_size: int = 500) -> Config:
        """The loader of a split: in random order and without the incomplete last batch for ``train``."""
        trains = split == 'train'
        if self.device is not None:
            sampler = f'arrays.{"shuffled" if trains else "in_order"}'
            return _loader(split, sampler, {'batch_size': batch_size}, num_workers=0, batch_size=None)
        sampler = f'torch.utils.data.{"RandomSampler" if trains else "SequentialSampler"}'
        options = {'num_workers': self.num_workers, 'batch_size': batch_size, **({'drop_last': True} if trains else {})}
        return _loader(split, sampler, {}, **options)


def _loader(dataset_id: str, sampler: str, sampler_kwargs: Config, **kwargs: Any) -> Config:
    return {
        'dataset_id': dataset_id,
        'sampler': {'class_or_func': _Got(key=sampler), 'kwargs': sampler_kwargs},
        'kwargs': kwargs,
    }


def _model(key: str, classes: int, source: Path | None, target: Path | None = None) -> Config:
    files = {'src_ckpt': None if source is None else str(source), 'dst_ckpt': None if target is None else str(target)}
    return {'key': key, 'kwargs': {'num_classes': classes}, **files}


def make_config(run: Run, recipe: Recipe, source: Source, teacher: Path, folder: Path, num_steps: int) -> str:
    """Returns the YAML of a run.

    Args:
        run: What to train.
        recipe: How.
        source: Where its images come from.
        teacher: Weights of the teacher.
        folder: Folder of the run.
        num_steps: Steps of an epoch.
    """
    pair, is_teacher = recipe.pair, run.method == 'teacher'
    batch_size = run.batch_size(recipe)
    own_cycle = (run.variant.epochs or recipe.epochs, recipe.max_lr)
    epochs, max_lr = recipe.teacher_cycles[run.seed] if is_teacher else own_cycle
    max_lr *= batch_size / recipe.batch_size
    train: Config = {
        'log_freq': 1000,
        'num_epochs': run.variant.stop or epochs,
        'train_data_loader': source.loader('train', batch_size),
        'val_data_loader': source.loader('val'),
        'optimizer': {'key': recipe.optimizer, 'kwargs': {'lr': max_lr, **OPTIMIZERS[recipe.optimizer]}},
        'scheduler': {
            'key': 'OneCycleLR',
            'kwargs': {'max_lr': max_lr, 'total_steps': epochs * num_steps, 'pct_start': 0.25},
            'scheduling_step': 1,
        },
    }
    start = teacher if is_teacher and run.seed > 0 else None
    own = _model((pair.teacher if is_teacher else pair.student).key, pair.classes, start, folder / 'best.pt')
    if is_teacher or run.method == 'student':
        models = {'model': own}
        loss = {'key': 'CrossEntropyLoss', 'kwargs': {'reduction': 'mean'}}
        train['model'] = {'forward_proc': 'forward_batch_only', 'wrapper': None, 'requires_grad': True}
        train['criterion'] = {
            'key': 'WeightedSumLoss',
            'kwargs': {'sub_terms': {'ce': {'criterion': loss, 'criterion_wrapper': SIMPLE_WRAPPER, 'weight': 1.0}}},
        }
    else:
        models = {'teacher_model': _model(pair.teacher.key, pair.classes, teacher), 'student_model': own}
        if not run.variant.teacher_trains:
            train['pre_epoch_process'] = 'pre_epoch_process_with_trg'
        method = method_named(run.method if run.method in METHODS else run.variant.method)
        train |= train_sides(method, pair, run.kd, run.weights, run.variant)
    losses = {each['criterion']['key'] for each in train['criterion']['kwargs']['sub_terms'].values()}
    dependencies = ['trg_torchdistill', *(module for key, module in MODULES.items() if key in losses)]
    config = {
        'dependencies': [{'name': name} for name in dependencies],
        'datasets': {split: source.images(split, SETTINGS[run.setting]) for split in ('train', 'val', 'test')},
        'models': models,
        'train': train,
        'test': {'test_data_loader': source.loader('test')},
    }
    return yaml.dump(config, Dumper=_Dumper, sort_keys=False, width=120)


SIMPLE_WRAPPER = {
    'key': 'SimpleLossWrapper',
    'kwargs': {
        'input': {'is_from_teacher': False, 'module_path': '.', 'io': 'output'},
        'target': {'uses_label': True},
    },
}
