"""What the tasks of torchdistill's COCO trainers share: models of torchvision with a backbone, maps or boxes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from trg_torchdistill.cli.probe.build import build_untrained
from trg_torchdistill.cli.probe.image_size import ImageSize, image_sizes
from trg_torchdistill.cli.probe.layers import choose_layer
from trg_torchdistill.cli.probe.probe import ModelProbe, Record
from trg_torchdistill.cli.probe.weights import asks_for_pretrained
from trg_torchdistill.cli.recipe.called import loaders
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.recipe.deferred import Deferred, deferred_in
from trg_torchdistill.cli.recipe.edit import unshared
from trg_torchdistill.cli.recipe.keys import check_models
from trg_torchdistill.cli.tasks.task import Task
from trg_torchdistill.errors import TRGError

# A detection backbone may be cut down to its body, without the pyramid.
BACKBONES = ('backbone', 'backbone.body')
MANY_STEPS = 10**6


class DenseTask(Task):
    """A task whose targets are maps or boxes.

    Attributes:
        torchvision: Where torchvision has its models of the task.
        official: The host's function that builds one of these.
        datasets: Classes of data sets that are for this task alone.
        collate: The function that the example trainer has for batches of it.
        is_segment: What ``coco.dataset.coco_dataset`` of the example trainers is told.
    """

    torchvision: ClassVar[ModuleType]
    official: ClassVar[Callable[..., nn.Module | None]]
    datasets: ClassVar[tuple[str, ...]]
    collate: ClassVar[str]
    is_segment: ClassVar[bool]
    returns_logits = False

    def traits(self, config: Config) -> list[str]:
        """Returns the models of torchvision, the data sets and the ``collate_fn`` that only this task has."""
        keys = [config.get(*path, 'key') for path in config.model_paths]
        found = [f'the model `{key}`' for key in keys if isinstance(key, str) and callable(self._model(key))]
        for call in deferred_in(config.get('datasets')):
            name = str(call.get('key')).rpartition('.')[2]
            if name in self.datasets or call.get('init', 'kwargs', 'is_segment') is self.is_segment:
                found.append(f'the data set `{name}`')
        if any(config.get(*path, 'collate_fn') == self.collate for path in loaders(config)):
            found.append(f'`collate_fn: {self.collate!r}`')
        return list(dict.fromkeys(found))

    def _model(self, key: str) -> Any:
        return vars(self.torchvision).get(key)

    def build(self, config: Config, path: tuple[str, ...], num_classes: int | None) -> nn.Module:
        """Builds a model of torchvision, or a registered one."""

        def official(block: Mapping[str, Any], _: bool) -> nn.Module | None:
            build: Any = type(self).official
            kwargs = dict(block['kwargs'])
            known = inspect.signature(self._model(block['key']) or len).parameters
            if 'weights_backbone' in known:
                kwargs['weights_backbone'] = None  # where it is not given, torchvision would download some
            if 'aux_loss' in known and asks_for_pretrained(config, path):
                kwargs.setdefault('aux_loss', True)  # as those weights have it
            model: nn.Module | None = build({**block, 'kwargs': kwargs})
            return model

        return build_untrained(config, path, num_classes, official)

    def check_models(self, config: Config) -> None:
        """Checks that each model is one that the host builds."""
        check_models(config, self.torchvision)

    def sizes(self, config: Config, stage: tuple[str, ...], models: Sequence[nn.Module]) -> list[ImageSize]:
        """Returns the sizes that the transforms tell, and usual ones."""
        return image_sizes(config, stage, models)

    def default_layer(self, probe: ModelProbe, side: str, path: str | None, like: Record | None = None) -> Record:
        """Returns what the backbone gives to the head; of several maps, the last one."""
        found = [] if path is not None else [probe.record(each) for each in BACKBONES]
        for each in found:
            if each is not None and each.is_spatial and (like is None or like.width == each.width):
                return each
        return choose_layer(probe, side, path, like)

    def step(self, batch: Any, device: torch.device) -> tuple[Any, Any, Any]:
        """Returns what these trainers hand over.

        Raises:
            TRGError: If the ``collate_fn`` made another batch than theirs does, which ends the training.
        """
        images, targets, supplement = batch
        if isinstance(supplement, Mapping):
            raise TRGError(
                f'expected batches that `{self.collate}` made, got others, which the trainer cannot read; write '
                f'`collate_fn: {self.collate!r}` under `train_data_loader:`'
            )
        return _moved(images, device), _moved(targets, device), default_collate(supplement)

    def as_trained(self, config: Config) -> Config:
        """Returns a YAML without what is counted in its data: groups of images of one shape, steps of an epoch."""
        changed = Config(config.path, config.text, unshared(config.data))
        for path in loaders(changed):
            sampler = changed.get(*path, 'batch_sampler', 'kwargs')
            if isinstance(sampler, dict) and isinstance(sampler.get('group_ids'), Deferred):
                changed.mapping(*path, 'kwargs')['batch_size'] = sampler['batch_size']
                del changed.mapping(*path)['batch_sampler']
        datasets = {id(each) for each in deferred_in(config.get('datasets'))}
        for stage in changed.stage_paths():
            arguments = changed.get(*stage, 'scheduler', 'kwargs') or {}
            for name, value in arguments.items():
                if any(id(each) in datasets for each in deferred_in(value)):
                    arguments[name] = MANY_STEPS
        return changed


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: _moved(each, device) for key, each in value.items()}
    return [_moved(each, device) for each in value]
