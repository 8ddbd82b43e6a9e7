"""Where the weights of a model are from: its ``src_ckpt``, read without running code from the file, or its code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from torch import nn

from trg_torchdistill.cli.probe.wrappings import Wrapped, conversion_of_unsafe, misfit
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.errors import TRGError, explained, told
from trg_torchdistill.files import UnreadableError, UnsafeError, identity, is_address, read_saved, shown_path
from trg_torchdistill.host import Box

PRETRAINED = 'pretrained, by its `kwargs:`'
AS_BUILT = 'random, unless its own code loads some'


def read_checkpoint(source: str, wanted: str) -> Mapping[str, Any]:
    """Returns what a file or address holds: a checkpoint of an example trainer, bare weights, or anything like them.

    Args:
        source: File or ``http(s)://`` address.
        wanted: What the file should be, for the message: "`src_ckpt` to hold weights of `resnet18`".

    Raises:
        TRGError: If there is none, it is damaged, was not written by ``torch.save``, or holds objects that could run
            code.
    """
    try:
        checkpoint = read_saved(source)
    except UnreadableError as error:
        way_out = 'correct the path or write the file anew'
        if isinstance(error, UnsafeError):
            conversion = conversion_of_unsafe(source)
            way_out = f'if you trust its author, keep its weights alone and name that file: {conversion}'
        raise TRGError(f'expected {wanted}, got {source}: {error}. It was left as it is; {way_out}') from error
    if not isinstance(checkpoint, Mapping):
        raise TRGError(
            f'expected {wanted}, got {source}: it holds a {type(checkpoint).__name__}; save a `state_dict()`'
        )
    return checkpoint


def load_weights(model: nn.Module, checkpoint: Mapping[str, Any], source: str, wanted: str) -> None:
    """Loads the weights of a checkpoint, or bare weights, strictly, as the host does.

    Raises:
        TRGError: If they are not this model's, or in a wrapping that the host does not read.
    """
    try:
        model.load_state_dict(checkpoint.get('model', checkpoint))
    except Exception as error:  # a model may load its weights in a way of its own
        reason = misfit(model, checkpoint, source) or told(error)
        raise TRGError(f'expected {wanted}, got {source}: {reason}') from error


def load_start(config: Config, path: tuple[str, ...], model: nn.Module) -> str:
    """Gives a model the weights from which it starts, and returns where they are from.

    A student's ``src_ckpt`` that its own training writes need not exist yet.

    Args:
        config: A checked YAML.
        path: Path of the model's block.
        model: The model, newly built.

    Raises:
        TRGError: If the file that is asked for does not exist or the weights do not fit.
    """
    require_file(config, path)
    source = source_of(config, path)
    if _is_there(source):
        wanted = f'{config.where(*path, "src_ckpt")} to hold weights of `{config.get(*path, "key")}`'
        load_weights(model, read_checkpoint(source, wanted), source, wanted)
        return source
    return PRETRAINED if asks_for_pretrained(config, path) else AS_BUILT


def source_of(config: Config, path: tuple[str, ...]) -> str | None:
    """Returns the ``src_ckpt`` of the block at ``path``, None where there is none.

    Raises:
        TRGError: If it is no text, or an empty one.
    """
    source = config.get(*path, 'src_ckpt')
    if source is not None and (not isinstance(source, str) or not source):
        where = config.where(*path, 'src_ckpt')
        raise TRGError(f'expected {where} to be a path or an address, got {source!r}; write nothing for none')
    return source


def require_file(config: Config, path: tuple[str, ...]) -> None:
    """Raises TRGError if the ``src_ckpt`` of a block is asked for and :func:`missing_file`."""
    source = missing_file(config, path)
    if source is not None:
        raise TRGError(
            f'expected {config.where(*path, "src_ckpt")} to be a file of weights, got {shown_path(source)}, which does '
            'not exist; correct the path, train that model first, or leave `src_ckpt:` empty'
        )


def missing_file(config: Config, path: tuple[str, ...]) -> str | None:
    """Returns the ``src_ckpt`` of a block if there is no such file and training that model does not write it."""
    source = source_of(config, path)
    return None if source is None or _is_there(source) or is_written(config, path) else source


def is_written(config: Config, path: tuple[str, ...]) -> bool:
    """Whether the ``src_ckpt`` of a block is a file that the training of that model writes."""
    source, side = source_of(config, path), path[-1].removesuffix('_model')
    own = [config.get('train', side, 'dst_ckpt')] if path[0] == 'train' else []
    own += [config.get(*config.student_path, 'dst_ckpt')] if side != 'teacher' else []
    return source is not None and identity(source) in [identity(file) for file in own if isinstance(file, str)]


def stage_blocks(config: Config) -> list[tuple[str, ...]]:
    """Returns the paths of the blocks of the models in all stages, which may have a ``src_ckpt`` of their own."""
    return [(*stage, side) for stage in config.stage_paths() for side in config.side_names]


def check_stage_files(config: Config) -> None:
    """Reads the ``src_ckpt`` of each stage's models, which the host will load with pickle, and so run any code in it.

    Raises:
        TRGError: If a file is missing, holds more than tensors and plain values, or is damaged.
    """
    for path in stage_blocks(config):
        require_file(config, path)
        source = source_of(config, path)
        if _is_there(source):
            read_checkpoint(source, f'{config.where(*path, "src_ckpt")} to hold weights')


def asks_for_pretrained(config: Config, path: tuple[str, ...]) -> bool:
    """Whether the arguments of a model ask for weights: ``pretrained: True`` or a ``weights:``."""
    kwargs = config.mapping(*path, 'kwargs')
    return bool(kwargs.get('pretrained')) or kwargs.get('weights') is not None


def has_trained_weights(config: Config, path: tuple[str, ...]) -> bool:
    """Whether a model starts from stored weights: its ``src_ckpt``, ``pretrained: True`` or a ``weights:``."""
    return _is_there(source_of(config, path)) or asks_for_pretrained(config, path)


def load_optimizer(box: Box, source: str | None) -> float | None:
    """Restores the optimizer and the scheduler from a trainer's checkpoint, as the example trainer does.

    Args:
        box: Distillation or training box.
        source: The student's ``src_ckpt``. A missing file and one of bare weights change nothing.

    Returns:
        The best validation accuracy that the checkpoint knows, else 0; None if it changed nothing.

    Raises:
        TRGError: If the optimizer's state does not fit the parameters that are trained now.
    """
    if source is None or not Path(source).exists():  # an address gives its weights alone
        return None
    wanted = "the optimizer's state in the student's `src_ckpt` to fit"
    checkpoint = read_checkpoint(source, wanted)
    if 'optimizer' not in checkpoint:
        return None
    line = f'to start from its weights alone, name the file that this writes: {weights_alone(source)}'
    with explained(f'expected {wanted}, got {source}', line):
        box.optimizer.load_state_dict(checkpoint['optimizer'])
        if box.lr_scheduler is not None and checkpoint.get('lr_scheduler') is not None:
            box.lr_scheduler.load_state_dict(checkpoint['lr_scheduler'])
        lacking = {key for group in box.optimizer.param_groups for key in box.optimizer.defaults.keys() - group.keys()}
        if lacking:
            raise TRGError(f'expected {wanted}, got {source} of another optimizer, without {sorted(lacking)}; {line}')
        return float(checkpoint.get('best_value') or 0.0)


def weights_alone(source: str) -> str:
    """Returns the line that writes the weights of a trainer's checkpoint without its optimizer."""
    return Wrapped(('model',), '', False, {}).conversion(source)


def _is_there(source: str | None) -> TypeGuard[str]:
    return source is not None and (is_address(source) or Path(source).exists())
