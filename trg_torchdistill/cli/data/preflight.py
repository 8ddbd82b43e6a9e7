"""Tries each loader of a YAML before the first step, with one batch, so that no mistake in the data is met later."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.data import BatchSampler
from torchdistill.core.interfaces.registry import get_forward_proc_func
from torchdistill.datasets.util import build_data_loader
from torchdistill.datasets.wrapper import BaseDatasetWrapper

from trg_torchdistill.cli.data.classes import class_counts
from trg_torchdistill.cli.data.items import Sample, check_batch, check_class_names, check_labels, looked_at, no_pair
from trg_torchdistill.cli.data.reading import Items, checked, count_each_image_once, inner, name_of, prepare
from trg_torchdistill.cli.data.untouched import untouched_data, untouched_data_sets, untouched_model
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.runtime.placement import Placement
from trg_torchdistill.cli.runtime.progress import Reporter
from trg_torchdistill.cli.runtime.random_state import preserved_random_state
from trg_torchdistill.errors import TRGError, explained
from trg_torchdistill.procs import forward_logits_only

logger = logging.getLogger(__name__)
TAKE_IMAGES_ALONE = ('forward_batch_only', 'forward_batch4sskd', 'forward_logits_only')
TEACHER_STAYS_IN_TRAIN_MODE = (None, 'default_pre_epoch_process_with_teacher')


@dataclass(frozen=True)
class Findings:
    """What the data are.

    Attributes:
        looked_at: A line for each loader.
        warnings: What may be a mistake.
        num_classes: Number of logits of each side.
    """

    looked_at: list[str]
    warnings: list[str]
    num_classes: dict[str, int]

    def tell(self, reporter: Reporter) -> None:
        """Shows the warnings, and writes the rest to the log."""
        for line in self.looked_at:
            logger.info(line)
        for warning in self.warnings:
            reporter.say(f'WARNING: {warning}')


def loader_paths(config: Config) -> list[tuple[str, ...]]:
    """Returns the path of every loader of the training stages, without those that are as one of an earlier stage."""
    paths: list[tuple[str, ...]] = []
    for name in ('train_data_loader', 'val_data_loader'):
        known: list[Any] = [None]
        for stage in config.stage_paths():
            block = config.get(*stage, name)
            if block not in known:
                known.append(block)
                paths.append((*stage, name))
    return paths


def look_at_data(
    config: Config, paths: Sequence[tuple[str, ...]], models: Mapping[str, nn.Module | None], placement: Placement
) -> Findings:
    """Reads a batch of each loader, asks the models about it, and leaves data, models and generators as they were.

    No worker is started. Of several processes each looks at its own images.

    Args:
        config: A checked YAML with its data sets built.
        paths: Of the loaders.
        models: ``student`` and ``teacher`` on their device, None where the YAML has none or it is not tested.
        placement: Device and processes.

    Raises:
        TRGError: At the first thing on which training, validation or test would fail.
    """
    known = {side: model for side, model in models.items() if model is not None}
    datasets = [config.mapping('datasets')[config.get(*path, 'dataset_id')] for path in paths]
    with preserved_random_state(), untouched_data_sets(datasets):
        samples = [_sample(config, path, placement) for path in paths]
        widths: dict[str, int] = {}
        for sample in samples:
            if not sample.trains:
                widths = {side: _num_logits(side, model, sample, placement) for side, model in known.items()}
        warnings = [text for sample in samples for text in check_labels(sample, widths)]
        warnings += check_class_names(samples)
        for sample in samples:
            if sample.trains:
                class_counts(inner(sample.loader.dataset))
                _try_training_images(sample, known, placement)
                _try_one_image(sample, known, placement)
    return Findings([looked_at(sample) for sample in samples], list(dict.fromkeys(warnings)), widths)


def _sample(config: Config, path: tuple[str, ...], placement: Placement) -> Sample:
    """Returns the first batch of a loader, read in this process; its form is that of a batch.

    Raises:
        TRGError: If there is none, or the trainer cannot use it.
    """
    where, trains = config.where(*path), path[-1] == 'train_data_loader'
    settings: dict[str, Any] = {'requires_supp': True} if trains else {}  # as the host does for its training loader
    dataset = config.mapping('datasets')[config.get(*path, 'dataset_id')]
    name = name_of(config, dataset)
    with explained(f'expected {name} to tell its number of images'):
        size = len(dataset)
    if size == 0:
        raise TRGError(f'expected {name} to hold images for {where}, got none; correct the data set')
    with explained(f'building the loader {where} failed', 'change it or its `dataset_wrapper:`'):
        loader = build_data_loader(dataset, {**settings, **config.mapping(*path)}, placement.distributed)
    prepare(loader if trains else count_each_image_once(loader), config)
    with explained(f'the sampler of {where} failed'):
        num_batches = len(loader)
    if not any(placement.processes.gathered(num_batches)):
        share = ' for each process' if placement.processes.are_several else ''
        raise TRGError(
            f'expected {where} to give at least one batch{share} of the {size} images of {name}, got none; lower '
            f'`batch_size:` or set `drop_last: False` in {config.where(*path, "kwargs")}'
        )
    with untouched_data(loader):
        with explained(f'the sampler of {where} failed'):
            if loader.batch_sampler is None:
                indices = [next(iter(loader.sampler))]
            else:
                indices = list(next(iter(loader.batch_sampler), [])) or [0]
        if type(loader.dataset.source) is BaseDatasetWrapper:  # it unpacks a pair
            item = checked(Items(loader.dataset.dependencies, dataset, name)[indices[0]])
            if not isinstance(item, (tuple, list)) or len(item) != 2:
                raise no_pair(config, path, name, item)
        items = checked(loader.dataset.__getitems__(indices))
        batch = checked(loader.collate_fn(items[0] if loader.batch_sampler is None else items))
    sample = Sample(config, path, name, loader, indices, items[0], batch)
    check_batch(sample)
    return sample


def _num_logits(side: str, model: nn.Module, sample: Sample, placement: Placement) -> int:
    """Returns the number of classes that a model tells apart in an image, as its validation or test will ask it."""
    logits = _first_image(side, model, sample, placement, forward_logits_only)
    if logits.ndim != 2:
        raise TRGError(
            f'expected the {side} `{type(model).__name__}` to return logits [images, classes], got '
            f'{list(logits.shape)} for one image of {sample.name}; change the model or its `forward_proc:`'
        )
    return int(logits.shape[1])


def _try_training_images(sample: Sample, models: Mapping[str, nn.Module], placement: Placement) -> None:
    """Asks the models of a stage about a training image, whose form may be another than that of the validation's."""
    for side, model in models.items():
        process = sample.of_side(side, 'forward_proc')
        is_whole = process in TAKE_IMAGES_ALONE and not sample.of_side(side, 'sequential')
        if is_whole and isinstance(sample.batch[0], torch.Tensor):
            _first_image(side, model, sample, placement, get_forward_proc_func(process))


def _first_image(side: str, model: nn.Module, sample: Sample, placement: Placement, forward: Callable[..., Any]) -> Any:
    """Returns what a forward process gives for the first image of a sample, the model in eval mode."""
    images = sample.batch[0][:1].to(placement.device)
    form = f'{list(images.shape)} {str(images.dtype).removeprefix("torch.")}'
    advice = 'correct the `transform:` of that data set or the model'
    tried = _tried(side, model, False, f'on the images {form} of {sample.name}', advice)
    with tried as plain, placement.precision.autocast():
        return forward(plain, images)


def _try_one_image(sample: Sample, models: Mapping[str, nn.Module], placement: Placement) -> None:
    """Asks the models in train mode about the one image of the last batch, which a batch normalisation may refuse."""
    config, batches = sample.config, sample.loader.batch_sampler
    if type(batches) is not BatchSampler:
        return
    count = len(batches.sampler)  # type: ignore[arg-type]
    if batches.batch_size != 1 and (batches.drop_last or count % batches.batch_size != 1):
        return
    with untouched_data(sample.loader):
        items = sample.loader.dataset.__getitems__(sample.indices[:1])
        images, targets, supplement = checked(sample.loader.collate_fn(items))
    images, targets = images.to(placement.device), targets.to(placement.device)
    # the host leaves even a frozen teacher in train mode
    process = config.get(*sample.path[:-1], 'pre_epoch_process')
    teacher_trains = process in TEACHER_STAYS_IN_TRAIN_MODE or sample.of_side('teacher', 'requires_grad') is not False
    advice = (
        f'{config.where(*sample.path)} leaves it of {count} images: set `drop_last: True` or another `batch_size:` in '
        f'{config.where(*sample.path, "kwargs")}'
    )
    for side, model in models.items():
        if sample.of_side(side, 'sequential') or (side == 'teacher' and not teacher_trains):
            continue
        forward = get_forward_proc_func(sample.of_side(side, 'forward_proc'))
        with _tried(side, model, True, 'in train mode on one image, as the last batch would be', advice) as plain:
            forward(plain, images, targets, supplement)


@contextlib.contextmanager
def _tried(side: str, model: nn.Module, training: bool, on: str, advice: str) -> Iterator[nn.Module]:
    """Puts a model in a mode for a block without gradients, leaves it as it was, and says what failed on what."""
    plain = getattr(model, '_orig_mod', model)  # a compiled model would be compiled once more
    with untouched_model(plain, training), explained(f'the {side} `{type(plain).__name__}` failed {on}', advice):
        yield plain
