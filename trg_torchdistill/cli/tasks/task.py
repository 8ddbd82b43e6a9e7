"""What the sub-commands ask of a task: how its YAMLs look, how its models are built, what they take and return."""

from __future__ import annotations

import contextlib
import shlex
import sys
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from torch.utils.data import Dataset

from trg_torchdistill.cli.probe.batch import Batch
from trg_torchdistill.cli.probe.layers import choose_layer
from trg_torchdistill.cli.probe.probe import ModelProbe, Record
from trg_torchdistill.cli.probe.trial import Size
from trg_torchdistill.cli.probe.weights import asks_for_pretrained, load_start, source_of
from trg_torchdistill.cli.recipe.config import Config, import_packages
from trg_torchdistill.files import is_address


@dataclass(frozen=True)
class Mask:
    """How the losses learn which tokens take part.

    Attributes:
        loss: Options of a relation loss.
        wrapper: Options of ``Student4TRG``, which make the mask; it is written for them alone, too.
        hooks: By side, module paths that the host must hook for it.
        note: What the user must know of it.
    """

    loss: Mapping[str, Any] = field(default_factory=dict)
    wrapper: Mapping[str, Any] = field(default_factory=dict)
    hooks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    note: str = ''


class Task(ABC):
    """A kind of training; a subclass in a file of its own is all that another one needs.

    Attributes:
        name: What it is called, ``image classification``.
        item: One of what a batch consists of, ``an image``.
        items: What a batch consists of, ``images``.
        label: What the label of an item is, for the user.
        metric: What its trainer measures after an epoch, for the user.
        model_keys: Keys of a block under ``models:`` beside ``key``, ``src_ckpt`` and ``dst_ckpt``.
        packages: What its YAMLs with TRG need under ``dependencies:``.
        returns_logits: Whether the losses take logits out of what the models return, and not that as it is.
        sections: Sections of its YAMLs beside ``dependencies``, ``datasets``, ``models``, ``train`` and ``test``.
    """

    name: ClassVar[str]
    item: ClassVar[str] = 'an image'
    items: ClassVar[str] = 'images'
    label: ClassVar[str]
    metric: ClassVar[str]
    model_keys: ClassVar[Collection[str]] = ('kwargs', 'repo_or_dir', 'quantized', 'sync_bn')
    packages: ClassVar[Sequence[str]] = ('trg_torchdistill',)
    returns_logits: ClassVar[bool] = True
    sections: ClassVar[Collection[str]] = ()

    @abstractmethod
    def traits(self, config: Config) -> list[str]:
        """Returns what in a YAML only this task has, in words for the user; nothing if it is of another."""

    @abstractmethod
    def trainer(self, config: Config) -> str:
        """Returns torchdistill's example trainer of a YAML, its path from the root of the repository."""

    @abstractmethod
    def build(self, config: Config, path: tuple[str, ...], num_classes: int | None) -> nn.Module:
        """Builds the model described at ``path`` with random weights, and without a download.

        Raises:
            TRGError: If that cannot be done.
        """

    @abstractmethod
    def sizes(self, config: Config, stage: tuple[str, ...], models: Sequence[nn.Module]) -> Sequence[Size]:
        """Returns the sizes of an item to try, the likeliest first."""

    @abstractmethod
    def batch(self, model: nn.Module, size: Any) -> Batch:
        """Returns a random batch of items of one of :meth:`sizes`, as a model takes it in eval mode."""

    @abstractmethod
    def random_data(self, probe: ModelProbe, count: int) -> Dataset[Any]:
        """Returns a data set of random items and labels, from what the student did with a batch."""

    @abstractmethod
    def check_models(self, config: Config) -> None:
        """Checks the blocks under ``models:``.

        Raises:
            TRGError: At the first mistake, with the line to change.
        """

    def command(self, config: Config, file: str) -> str:
        """Returns the command that trains a YAML file with the example trainer."""
        return shlex.join(['python', self.trainer(config), '--config', file])

    def built_as(self, config: Config, side: str, model: nn.Module) -> str:
        """Returns what was assumed to build a model, where the YAML does not tell all of it."""
        return ''

    def load_start(self, config: Config, path: tuple[str, ...], model: nn.Module) -> tuple[str, bool]:
        """Gives the model described at ``path`` its local weights; returns where they are from, and if it found any.

        Raises:
            TRGError: If they do not fit.
        """
        source = source_of(config, path)
        if source is not None and Path(source).exists():
            load_start(config, path, model)
            return f'weights of {source}', True
        asks = is_address(source or '') or asks_for_pretrained(config, path)
        return ('random weights here, nothing is downloaded' if asks else 'random weights'), False

    def as_trained(self, config: Config) -> Config:
        """Returns a YAML as the example trainer hands it to torchdistill's box; it is not changed."""
        return config

    def default_layer(self, probe: ModelProbe, side: str, path: str | None, like: Record | None = None) -> Record:
        """Returns the record of the layer whose output becomes the tokens, or of the one that the user names.

        The arguments are those of :func:`~trg_torchdistill.cli.probe.layers.choose_layer`.

        Raises:
            TRGError: If there is no such module, or its output cannot be cut into tokens.
        """
        return choose_layer(probe, side, path, like)

    def mask(self, config: Config, probes: Mapping[str, ModelProbe]) -> Mask:
        """Returns how the losses learn which tokens take part; all do by default."""
        return Mask()

    def logits_only(self, probes: Mapping[str, ModelProbe]) -> list[str]:
        """Returns the sides whose model returns no tensor, so that they need ``forward_logits_only``."""
        if not self.returns_logits:
            return []
        return [side for side, probe in probes.items() if probe.returned not in ('Tensor', 'Parameter')]

    def step(self, batch: Any, device: torch.device) -> tuple[Any, Any, Any]:
        """Returns the three arguments of the box's ``forward_process`` for what the training loader gives."""
        images, targets, supplement = batch
        return images.to(device), targets.to(device), supplement

    def import_packages(self, config: Config) -> None:
        """Imports the packages under ``dependencies:``, those beside the example trainer where it is found.

        Raises:
            TRGError: If one is not installed, or fails.
        """
        with packages_of(trainer_folder(config, self.trainer(config))):
            import_packages(config)


def trainer_folder(config: Config, trainer: str) -> Path | None:
    """Returns the folder of an example trainer: in the checkout around the YAML or the working folder; None if nowhere.

    Args:
        config: A YAML.
        trainer: Path of the trainer from the root of torchdistill's repository.
    """
    here = Path.cwd()
    candidates = [parent / trainer for parent in (*config.path.resolve().parents, here, *here.parents)]
    found = [file.parent for file in (*candidates, here / Path(trainer).name) if file.is_file()]
    return found[0] if found else None


@contextlib.contextmanager
def packages_of(folder: Path | None) -> Iterator[None]:
    """Makes the packages of a folder importable, as they are for a script in it; those of the same name are dropped.

    torchdistill's folders of examples each have a package ``custom``.
    """
    if folder is None:
        yield
        return
    own = {entry.stem for entry in folder.iterdir() if entry.suffix == '.py' or (entry / '__init__.py').is_file()}
    for name, module in list(sys.modules.items()):
        file = getattr(module, '__file__', None)
        if name.partition('.')[0] in own and file is not None and not Path(file).resolve().is_relative_to(folder):
            del sys.modules[name]
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
