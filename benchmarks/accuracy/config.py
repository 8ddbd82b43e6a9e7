"""The whole torchdistill YAML of one run of the accuracy grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ablations import UNCHANGED, Variant
from methods import METHODS, Config, Weights, train_sides
from recipes import Recipe

MEAN, STD = [0.4914, 0.4822, 0.4465], [0.247, 0.2435, 0.2616]
SETTINGS = {
    'whole': None,
    'balanced': {'imbalance': 1, 'num_samples': 10000},
    'longtailed': {'imbalance': 100},
    'lowdata': {'imbalance': 1, 'num_samples': 4500},
}


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        setting: Key of :data:`SETTINGS`.
        method: Key of ``METHODS``, or ``teacher``.
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


def _images(data: Path, split: str, subset: Config | None, augmented: bool) -> _Tagged:
    transforms = [
        _call('torchvision.transforms.ToTensor'),
        _call('torchvision.transforms.Normalize', mean=MEAN, std=STD),
    ]
    if augmented:
        crop = _call('torchvision.transforms.RandomCrop', size=32, padding=4)
        transforms = [crop, _call('torchvision.transforms.RandomHorizontalFlip'), *transforms]
    transform = _call('torchvision.transforms.Compose', transforms=transforms)
    images = _call('torchvision.datasets.ImageFolder', root=str(data / split), transform=transform)
    return images if subset is None else _call('trg_torchdistill.datasets.LongTailed', dataset=images, **subset)


def _loader(dataset_id: str, sampler: str, recipe: Recipe, **kwargs: Any) -> Config:
    return {
        'dataset_id': dataset_id,
        'sampler': {'class_or_func': _Got(key=f'torch.utils.data.{sampler}'), 'kwargs': {}},
        'kwargs': {'num_workers': recipe.num_workers, **kwargs},
    }


def _model(key: str, classes: int, source: Path | None, target: Path | None = None) -> Config:
    files = {'src_ckpt': None if source is None else str(source), 'dst_ckpt': None if target is None else str(target)}
    return {'key': key, 'kwargs': {'num_classes': classes}, **files}


def make_config(run: Run, recipe: Recipe, data: Path, teacher: Path, folder: Path, num_steps: int) -> str:
    """Returns the YAML of a run.

    Args:
        run: What to train.
        recipe: How.
        data: Folder that ``prepare.py`` made.
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
        'num_epochs': epochs,
        'train_data_loader': _loader('train', 'RandomSampler', recipe, batch_size=batch_size, drop_last=True),
        'val_data_loader': _loader('val', 'SequentialSampler', recipe, batch_size=500),
        'optimizer': {
            'key': 'SGD',
            'kwargs': {'lr': max_lr, 'momentum': 0.9, 'weight_decay': 5e-4, 'nesterov': True},
        },
        'scheduler': {
            'key': 'OneCycleLR',
            'kwargs': {'max_lr': max_lr, 'total_steps': epochs * num_steps, 'pct_start': 0.25},
            'scheduling_step': 1,
        },
    }
    source = teacher if is_teacher and run.seed > 0 else None
    own = _model((pair.teacher if is_teacher else pair.student).key, pair.classes, source, folder / 'best.pt')
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
        train |= train_sides(METHODS[run.method], pair, run.kd, run.weights, run.variant)
    dependencies = ['trg_torchdistill', *([] if run.variant.loss == UNCHANGED.loss else ['controls'])]
    config = {
        'dependencies': [{'name': name} for name in dependencies],
        'datasets': {
            'train': _images(data, 'train', SETTINGS[run.setting], augmented=True),
            'val': _images(data, 'val', None, augmented=False),
            'test': _images(data, 'test', None, augmented=False),
        },
        'models': models,
        'train': train,
        'test': {'test_data_loader': _loader('test', 'SequentialSampler', recipe, batch_size=500)},
    }
    return yaml.dump(config, Dumper=_Dumper, sort_keys=False, width=120)


SIMPLE_WRAPPER = {
    'key': 'SimpleLossWrapper',
    'kwargs': {
        'input': {'is_from_teacher': False, 'module_path': '.', 'io': 'output'},
        'target': {'uses_label': True},
    },
}
