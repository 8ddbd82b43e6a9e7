"""Makes a YAML runnable quickly: random items or some of its own in the data sets, weights only from local files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset, RandomSampler
from torchdistill.core.distillation import DistillationBox, MultiStagesDistillationBox
from torchdistill.core.training import MultiStagesTrainingBox, TrainingBox

from trg_torchdistill.cli.probe.image_size import ImageSize
from trg_torchdistill.cli.probe.probe import ModelProbe
from trg_torchdistill.cli.probe.trial import Size, try_sizes
from trg_torchdistill.cli.probe.weights import stage_blocks
from trg_torchdistill.cli.recipe.called import LOADERS
from trg_torchdistill.cli.recipe.config import Config, with_home
from trg_torchdistill.cli.recipe.deferred import deferred_in, resolve
from trg_torchdistill.cli.tasks.task import Task
from trg_torchdistill.errors import TRGError

HOST_CLASSES = (DistillationBox, MultiStagesDistillationBox, TrainingBox, MultiStagesTrainingBox)
# Options of a loader that make sense for the real data only.
LOADER_COSTS = ('persistent_workers', 'prefetch_factor', 'timeout', 'worker_init_fn', 'multiprocessing_context')


@dataclass(frozen=True)
class Sides:
    """The models of a YAML and what their modules did with a batch.

    Attributes:
        probes: By side, ``teacher`` and ``student``, or ``student`` alone.
        task: The task of the YAML.
        size: Size of the items.
        weights: By side, where its weights are from, for the user.
        trained: Sides whose weights were loaded.
    """

    probes: dict[str, ModelProbe]
    task: Task
    size: Size
    weights: dict[str, str]
    trained: frozenset[str]


def build_sides(
    task: Task,
    config: Config,
    stage: tuple[str, ...],
    size: ImageSize | None = None,
    num_classes: int | None = None,
) -> Sides:
    """Builds the models with random weights, or with those of a local ``src_ckpt``, and looks at their modules.

    Args:
        task: The task of the YAML.
        config: A YAML read by :func:`~trg_torchdistill.cli.recipe.deferred.load_deferred`, its dependencies imported.
        stage: Path of the training stage, whose data set tells the size of the images.
        size: Size of the images, None to find it.
        num_classes: Overrides ``num_classes`` of the models.

    Raises:
        TRGError: If a model cannot be built, takes none of the sizes, or its weights do not fit.
    """
    trial = try_sizes(task, config, stage, size, num_classes)
    paths = {'teacher': config.teacher_path, 'student': config.student_path}
    weights: dict[str, str] = {}
    trained: set[str] = set()
    for side, probe in trial.probes.items():
        weights[side], found = task.load_start(config, paths[side] or (), probe.model)
        trained |= {side} if found else set()
    return Sides(trial.probes, task, trial.size, weights, frozenset(trained))


def batch_size_of(config: Config, stage: tuple[str, ...]) -> int:
    """Returns the batch size of a stage in the YAML; a stage without a loader has that of the stage before."""
    for path in reversed(config.stage_paths()[: config.stage_paths().index(stage) + 1]):
        loader = (*path, 'train_data_loader')
        for place in ('batch_sampler', 'kwargs', 'batch_size'), ('kwargs', 'batch_size'):
            size = config.get(*loader, *place)
            if isinstance(size, int) and size > 0:
                return size
        if config.get(*loader) is not None:
            return 1
    return 1


def without_data_tags(config: Config) -> Config:
    """Returns the YAML with all tags carried out but those of the models and the data sets.

    Raises:
        TRGError: If a tag cannot be carried out, or needs the data sets.
    """
    refused = {id(deferred) for deferred in deferred_in(config.get('datasets'))}
    advice = 'write the value itself to `check` this YAML'
    for path in (config.student_path, config.teacher_path):
        if path is not None and config.get(*path, 'src_ckpt') is not None:
            config.mapping(*path)['src_ckpt'] = resolve(config.get(*path, 'src_ckpt'), refused, advice)
    data = {
        key: resolve(value, refused, advice) if key in ('train', 'test') else value
        for key, value in config.data.items()
    }
    return Config(config.path, config.text, with_home(data))


def with_little_data(
    config: Config, sides: Sides, batch_size: int, num_batches: int, own: Mapping[str, Dataset[Any]]
) -> Config:
    """Returns the YAML for a box of its own: small data sets, loaders of ``batch_size``, nothing to write or download.

    Args:
        config: A checked YAML of :func:`without_data_tags`.
        sides: Its models.
        batch_size: Items a batch.
        num_batches: Batches an epoch.
        own: Its data sets, by key, of which to draw; random items take the place of those that are not there.
    """
    count = batch_size * num_batches
    data = sides.task.random_data(sides.probes['student'], count)
    train = resolve(config.data['train'], (), '')
    copied = Config(config.path, config.text, {**config.data, 'train': train})
    for stage in config.stage_paths():
        _check_validation(config, stage)
        for name in LOADERS:
            if copied.get(*stage, name) is not None:
                is_own = copied.get(*stage, name, 'dataset_id') in own
                _simplify_loader(copied, (*stage, name), batch_size, count if is_own else None)
    for path in (*stage_blocks(copied), *(('train', side) for side in copied.side_names)):
        block = copied.get(*path)
        if isinstance(block, dict):
            block.pop('dst_ckpt', None)
            if not Path(str(block.get('src_ckpt') or '')).is_file():
                block.pop('src_ckpt', None)
    copied.data['datasets'] = dict.fromkeys(config.mapping('datasets'), data) | dict(own)
    return copied


def _check_validation(config: Config, stage: tuple[str, ...]) -> None:
    """Refuses validation batches of three values, on which every trainer fails after its first epoch."""
    train, path = config.get(*stage, 'train_data_loader'), (*stage, 'val_data_loader')
    loader = config.get(*path)
    if loader is None:
        return
    if loader is train:
        raise TRGError(
            f'expected {config.where(*path)} to be a block of its own, got an alias of the training loader: '
            'torchdistill writes `requires_supp: True` into that one, and validation fails; write the block out'
        )
    for key in ('dataset_wrapper', 'requires_supp'):
        if loader.get(key):
            raise TRGError(
                f'expected {config.where(*path)} to give images and labels, got `{key}:`, which adds a third value, '
                f'and validation fails; remove {config.where(*path, key)}'
            )


def _simplify_loader(config: Config, path: tuple[str, ...], batch_size: int, count: int | None) -> None:
    """Makes a loader quick, of all items in any order, or of ``count`` that are drawn."""
    loader, kwargs = config.mapping(*path), config.mapping(*path, 'kwargs')
    drawn = {} if count is None else {'replacement': True, 'num_samples': count}
    loader['sampler'] = {'class_or_func': RandomSampler, 'kwargs': drawn}
    for name in LOADER_COSTS:
        kwargs.pop(name, None)
    kwargs.update(num_workers=0, pin_memory=False)
    if loader.get('batch_sampler'):
        config.mapping(*path, 'batch_sampler', 'kwargs')['batch_size'] = batch_size
    else:
        kwargs['batch_size'] = batch_size


@contextlib.contextmanager
def restored_host() -> Iterator[None]:
    """Leaves the host's box classes as they were: it attaches the processes of the last box to them."""
    before = [dict(vars(host_class)) for host_class in HOST_CLASSES]
    try:
        yield
    finally:
        for host_class, attributes in zip(HOST_CLASSES, before, strict=True):
            for name, value in list(vars(host_class).items()):
                if name not in attributes:
                    delattr(host_class, name)
                elif value is not attributes[name]:
                    setattr(host_class, name, attributes[name])
