"""Files: written whole or not at all, and read without running code from them."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch

from trg_torchdistill.errors import RunError, TRGError


class UnreadableError(TRGError):
    """A file cannot be opened, is damaged, or was not written by ``torch.save``; the text says which."""


class UnsafeError(UnreadableError):
    """A file holds more than tensors and plain values, which could run code when read."""


def shown_path(path: str) -> str:
    """Returns a path for the message that there is nothing: a relative one with the folder where it is looked for."""
    return path if Path(path).expanduser().is_absolute() else f'{path} (looked for in {Path.cwd()})'


def is_address(source: str) -> bool:
    """Whether a text is an ``http(s)://`` address, not a file."""
    return source.startswith(('https://', 'http://'))


def identity(path: str | Path) -> object:
    """Returns what all names of one file share: links, ``~`` and relative paths are followed."""
    real = os.path.realpath(os.path.expanduser(path))
    try:
        found = os.stat(real)
    except OSError:
        return real
    return found.st_dev, found.st_ino


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Opens a stream whose content becomes ``path`` when the block ends without an error.

    Until then, and after an error, an older file stays as it is; the new one is on the disk before it takes its place.
    A process that is killed may leave ``path`` with the suffix ``.tmp`` added; the next write replaces it.

    Args:
        path: File to write; its folder is made if it is missing.

    Raises:
        RunError: If the file cannot be written: the disk is full, the folder is read-only, ...
    """
    temporary = path.with_name(f'{path.name}.tmp')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open('wb') as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        finally:
            if temporary.exists():
                temporary.unlink()
    except (OSError, RuntimeError) as error:
        reason = _cause_in_system(error)
        if reason is None:
            raise
        kept = 'the older file was kept' if path.exists() else 'nothing was written'
        raise RunError(
            f'expected to write {path}, got {reason}; {kept}. Free space on that disk, make the folder writable, or '
            'change the path'
        ) from error


def save(state: object, path: Path) -> None:
    """Writes what :func:`read_saved` reads, whole or not at all."""
    with replacing(path) as stream:
        torch.save(state, stream)


def write_json_lines(path: Path, records: Iterable[object]) -> None:
    """Writes a line of JSON for each record, all or none."""
    with replacing(path) as stream:
        stream.writelines(f'{json.dumps(record)}\n'.encode() for record in records)


def _cause_in_system(error: BaseException | None) -> str | None:
    """What the system said; ``torch.save`` hides it behind an error of its own."""
    while error is not None:
        if isinstance(error, OSError):
            return error.strerror or str(error)
        error = error.__context__
    return None


def read_saved(source: str | Path) -> Any:
    """Returns what ``torch.save`` wrote: tensors, containers, plain values and ``argparse.Namespace``, on the CPU.

    Any other object in the file is refused before it comes to life, so that reading runs no code of the file. The
    example trainers keep their arguments, a ``Namespace``, beside the weights.

    Args:
        source: File or, as text, an ``http(s)://`` address, which is downloaded to torch's cache.

    Raises:
        UnsafeError: If there is such an object.
        UnreadableError: If the file cannot be read at all.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            if isinstance(source, str) and is_address(source):
                return torch.hub.load_state_dict_from_url(source, map_location='cpu', weights_only=True)
            return torch.load(source, map_location='cpu', weights_only=True)
    except Exception as error:  # a damaged file can raise anything
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> UnreadableError:
    refused = re.search(r'GLOBAL ([\w.]+)|global:? ([\w.]+) was not', str(error))
    if refused is not None:
        return UnsafeError(
            f'it holds `{refused[1] or refused[2]}`, not only tensors and plain values, and reading that could run code'
        )
    if isinstance(error, OSError):
        return UnreadableError(error.strerror or str(error))
    return UnreadableError(f'damaged or no file of `torch.save`, {type(error).__name__} on reading it')
