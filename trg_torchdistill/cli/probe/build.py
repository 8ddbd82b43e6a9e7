"""Builds what stands in a YAML: both models, with or without their weights, its relation losses and the host's box."""

from __future__ import annotations

import contextlib
import socket
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchdistill.core.distillation import get_distillation_box
from torchdistill.core.training import get_training_box
from torchdistill.models.official import get_image_classification_model
from torchdistill.models.registry import get_model

from trg_torchdistill.cli.probe.weights import check_stage_files, load_start, require_file
from trg_torchdistill.cli.recipe.called import sub_terms
from trg_torchdistill.cli.recipe.config import Config, UnknownHereError
from trg_torchdistill.cli.recipe.deferred import deferred_in, resolve
from trg_torchdistill.cli.runtime.placement import Placement
from trg_torchdistill.cli.runtime.random_state import preserved_random_state
from trg_torchdistill.errors import TRGError, explained, placed
from trg_torchdistill.host import Box
from trg_torchdistill.losses import RelationLoss
from trg_torchdistill.registration import relation_loss_classes

Official = Callable[[dict[str, Any], bool], nn.Module | None]
# Arguments of a model that ask for trained weights, and what they become.
WITHOUT_WEIGHTS = {'pretrained': False, 'pretrained_backbone': False, 'weights': None, 'weights_backbone': None}


def build_model(
    config: Config,
    path: tuple[str, ...],
    distributed: bool = False,
    official: Official = get_image_classification_model,
) -> nn.Module:
    """Builds the model described at ``path`` on the CPU, without its ``src_ckpt``.

    Args:
        config: A YAML.
        path: Path of the model's block.
        distributed: Whether training is distributed.
        official: The host's function that builds torchvision's models of a task, None for a key that it does not know.

    Raises:
        TRGError: If the model refuses its arguments.
    """
    model_config = config.mapping(*path)
    with placed(f'`{model_config["key"]}` refused its arguments', f'change {config.where(*path, "kwargs")}'):
        model: nn.Module | None = official(model_config, distributed)
        if model is None:
            model = get_model(model_config['key'], model_config.get('repo_or_dir'), **model_config['kwargs'])
    return model


def build_with_weights(config: Config, path: tuple[str, ...], distributed: bool = False) -> tuple[nn.Module, str]:
    """Builds the model described at ``path`` with the weights from which it starts; returns where they are from too.

    Raises:
        TRGError: If the model refuses its arguments, or the file of its weights is missing or does not fit.
    """
    require_file(config, path)
    model = build_model(config, path, distributed)
    return model, load_start(config, path, model)


def build_untrained(
    config: Config,
    path: tuple[str, ...],
    num_classes: int | None = None,
    official: Official = get_image_classification_model,
) -> nn.Module:
    """Builds the model described at ``path`` as the trainer does, but with random weights.

    No data set is built and the random state is left as it was.

    Args:
        config: A YAML read by :func:`~trg_torchdistill.cli.recipe.deferred.load_deferred`.
        path: Path of the model's block.
        num_classes: Overrides ``num_classes`` of its arguments.
        official: As for :func:`build_model`.

    Raises:
        TRGError: If the model cannot be built, or not without a download.
    """
    block = config.mapping(*path)
    kwargs = {key: WITHOUT_WEIGHTS.get(key, value) for key, value in config.mapping(*path, 'kwargs').items()}
    if num_classes is not None:
        kwargs['num_classes'] = num_classes
    repository = block.get('repo_or_dir')
    if repository is not None and kwargs.get('source') != 'local' and not _is_cached(repository):
        raise UnknownHereError(
            f'expected a model that can be built without a download, got {config.where(*path, "repo_or_dir")}; clone '
            f"the repository, name its folder there and add `source: 'local'` to the `kwargs:` of the model, or let "
            'torch.hub load it once'
        )
    datasets = {id(deferred) for deferred in deferred_in(config.get('datasets'))}
    advice = f'change {config.where(*path, "kwargs")} or give `--num-classes`'
    data = {**block, 'kwargs': resolve(kwargs, datasets, advice)}
    for key in reversed(path):
        data = {key: data}
    with offline() as refused, preserved_random_state(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            return build_model(Config(config.path, config.text, data), path, official=official)
        except TRGError as error:
            if not refused or repository is not None:  # torch.hub asks for the branch of one that it has
                raise
            raise UnknownHereError(
                f'{config.where(*path)} asked for a connection, and nothing is downloaded here; give it what it needs '
                f'in a local file. {error}'
            ) from error


def _is_cached(repository: object) -> bool:
    """Whether torch.hub has a repository of GitHub, in any branch, from before."""
    return any(Path(torch.hub.get_dir()).glob(f'{str(repository).partition(":")[0].replace("/", "_")}_*'))


@contextlib.contextmanager
def offline() -> Iterator[list[str]]:
    """Refuses connections inside the block, so that a model which asks for its weights says so.

    Yields:
        A list that is not empty any more once a connection was asked for.
    """
    connect, resolve_name = socket.socket.connect, socket.getaddrinfo
    refused: list[str] = []

    def refuse(*arguments: Any, **_: Any) -> Any:
        refused.append(str(arguments))
        raise ConnectionError('nothing is downloaded here, and it asked for a connection')

    socket.socket.connect = socket.getaddrinfo = refuse  # type: ignore[method-assign]
    try:
        yield refused
    finally:
        socket.socket.connect, socket.getaddrinfo = connect, resolve_name  # type: ignore[method-assign]


def relations_in(config: Config, stage: tuple[str, ...]) -> dict[str, RelationLoss]:
    """Returns the relation losses of a stage, ours and those of other packages, by the names of their terms.

    Raises:
        TRGError: If one cannot be built.
    """
    classes, found = relation_loss_classes(), {}
    for path in sub_terms(config, stage):
        criterion = config.get(*path, 'criterion')
        if isinstance(criterion, dict) and criterion['key'] in classes:
            with explained(f'building {config.where(*path, "criterion")} failed'):
                found[str(path[-1])] = classes[criterion['key']](**criterion.get('kwargs') or {})
    return found


def build_box(config: Config, teacher: nn.Module | None, student: nn.Module, placement: Placement) -> Box:
    """Builds the host's distillation box, or its training box when there is no teacher.

    Raises:
        TRGError: If the host is unknown, cannot build it of this YAML, or a stage names weights that could run code.
    """
    check_stage_files(config)
    common = (config.mapping('datasets'), config.mapping('train'), placement.device, placement.device_ids)
    rest = (placement.distributed, placement.lr_factor)
    with explained(
        f'torchdistill could not build {config.where("train")}', 'compare its blocks with a sample configuration'
    ):
        if teacher is None:
            return Box(get_training_box(student, *common, *rest))
        return Box(get_distillation_box(teacher, student, *common, *rest))
