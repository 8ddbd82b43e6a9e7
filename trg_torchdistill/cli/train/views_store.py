"""The folder of a teacher's views: what they were made of, and arrays that are read from the disk item by item."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from trg_torchdistill.errors import RunError, TRGError, explained
from trg_torchdistill.files import replacing

FACTS = 'views.json'
IMAGE = 'image'
MAX_DIFFERENCES = 3

Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Form:
    """Form of one item of an array.

    Attributes:
        shape: Its shape.
        dtype: Its type, numpy's name.
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def num_bytes(self) -> int:
        """Bytes of an item."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Store:
    """Views of the images of a data set, a folder of ``.npy`` files each.

    A folder gets its name when it is whole. What another run hooks is added to it later, made from the images in it.

    Attributes:
        folder: Where ``views.json`` and the views lie.
        num_images: Number of images of a view.
        forms: Forms of the arrays that this run reads, by name.
    """

    folder: Path
    num_images: int
    forms: Mapping[str, Form]

    def check(self, facts: Mapping[str, Any]) -> None:
        """Compares what the views were made of with what this run would make them of.

        Raises:
            TRGError: If they differ, or the folder is none of views.
        """
        file, now = self.folder / FACTS, _plain(facts)
        advice = f'remove {self.folder}, or name another folder with `--views_dir`'
        if self.folder.exists() and not self.folder.is_dir():
            raise TRGError(f"expected a folder for the teacher's views, got the file {self.folder}; {advice}")
        if not file.exists():
            if any(self.folder.glob('view-*')):
                raise TRGError(f'expected {file} to say what the views beside it were made of, got nothing; {advice}')
            return
        with explained(f"expected {file} to tell what the teacher's views were made of, got a damaged file", advice):
            before = json.loads(file.read_text(encoding='utf-8'))
        found = list(_differences(before, now))
        if found:
            shown = '; '.join(found[:MAX_DIFFERENCES]) + (' ...' if len(found) > MAX_DIFFERENCES else '')
            raise TRGError(f'expected {self.folder} to hold views that fit this run, got others: {shown}; {advice}')

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Keeps what the views of a new folder are made of."""
        if not (self.folder / FACTS).exists():
            with replacing(self.folder / FACTS) as stream:
                stream.write(json.dumps(_plain(facts), indent=1).encode())

    def missing(self, view: int) -> list[str]:
        """Returns the names of the arrays that a view lacks, all of them if it is not there."""
        return [name for name in self.forms if not self._file(view, name).exists()]

    def num_bytes(self, num_views: int) -> tuple[int, int]:
        """Returns the bytes of so many views, and those of them that are not written yet."""
        sizes = {name: form.num_bytes * self.num_images for name, form in self.forms.items()}
        lacking = sum(sizes[name] for view in range(num_views) for name in self.missing(view))
        return num_views * sum(sizes.values()), lacking

    def check_space(self, num_bytes: int) -> None:
        """Raises TRGError if the disk has no room for so many bytes."""
        place = next(folder for folder in (self.folder, *self.folder.absolute().parents) if folder.is_dir())
        free = shutil.disk_usage(place).free
        if num_bytes > free:
            raise TRGError(
                f"expected room for {size(num_bytes)} of the teacher's views in {self.folder}, got {size(free)}; free "
                'space, lower `--teacher_views`, or name a folder on another disk with `--views_dir`'
            )

    def open(self, view: int, names: Collection[str]) -> Arrays:
        """Returns arrays of a view, which stay on the disk.

        Raises:
            TRGError: If one is damaged or of another form.
        """
        arrays: Arrays = {}
        for name in names:
            file, form = self._file(view, name), self.forms[name]
            advice = f'remove {file.parent}, and it is written anew'
            with explained(f"expected {file} to hold an array of the teacher's views, got a damaged file", advice):
                arrays[name] = np.load(file, mmap_mode='r', allow_pickle=False)
            found = Form(arrays[name].shape[1:], str(arrays[name].dtype))
            if found != form or len(arrays[name]) != self.num_images:
                wanted, got = [self.num_images, *form.shape], list(arrays[name].shape)
                raise TRGError(
                    f'expected {file} to hold {form.dtype} {wanted}, got {found.dtype} {got}; remove the folder '
                    f'{self.folder}, or name another one with `--views_dir`'
                )
        return arrays

    def write(self, view: int, names: Collection[str], batches: Iterable[Arrays]) -> None:
        """Writes arrays of a view from its batches in order; a view appears when all is written.

        Raises:
            RunError: If the disk is full or read-only.
            TRGError: If an item has another form than the first one.
        """
        target = self.folder / f'view-{view}'
        temporary = self.folder / f'tmp-{target.name}-{uuid.uuid4().hex[:8]}'
        try:
            temporary.mkdir(parents=True)
            self._write(temporary, names, batches)
            if IMAGE not in names:
                for name in names:
                    os.replace(temporary / f'{name}.npy', target / f'{name}.npy')
            else:
                _rename(temporary, target)
        except OSError as error:
            raise RunError(
                f"expected to write the teacher's views into {self.folder}, got {error.strerror or error}; free space, "
                'make the folder writable, or name another one with `--views_dir`. Whole views were kept'
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _write(self, folder: Path, names: Collection[str], batches: Iterable[Arrays]) -> None:
        written = 0
        with contextlib.ExitStack() as stack:
            streams = {name: stack.enter_context((folder / f'{name}.npy').open('wb')) for name in names}
            for name, stream in streams.items():
                form = self.forms[name]
                descr, shape = npy.dtype_to_descr(np.dtype(form.dtype)), (self.num_images, *form.shape)
                npy.write_array_header_1_0(stream, {'descr': descr, 'fortran_order': False, 'shape': shape})
            for batch in batches:  # not through a memmap: a full disk would end the process without a word
                for name, stream in streams.items():
                    self._check_form(name, batch[name])
                    stream.write(batch[name].tobytes())
                written += len(batch[name])
            for stream in streams.values():
                stream.flush()
                os.fsync(stream.fileno())
        if written != self.num_images:
            raise TRGError(f'expected {self.num_images} images in a view, as the data set says, got {written}')

    def _check_form(self, name: str, values: np.ndarray[Any, Any]) -> None:
        form, found = self.forms[name], Form(values.shape[1:], str(values.dtype))
        if found != form:
            raise TRGError(
                f"expected equal shapes for the teacher's views, got `{name}` as {form.dtype} {list(form.shape)} and "
                f'as {found.dtype} {list(found.shape)}; let the `transform:` give images of one size'
            )

    def _file(self, view: int, name: str) -> Path:
        return self.folder / f'view-{view}' / f'{name}.npy'


def size(num_bytes: int) -> str:
    """Returns a number of bytes for the user."""
    return f'{num_bytes / 1e9:.2f} GB' if num_bytes >= 1e8 else f'{num_bytes / 1e6:.2f} MB'


def _rename(temporary: Path, target: Path) -> None:
    """Gives a folder its name, unless another run was faster."""
    try:
        temporary.rename(target)
    except OSError:
        if not target.is_dir():
            raise


def _plain(facts: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(facts, default=str))


def _differences(before: Any, now: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yields where two values of JSON differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys((*before, *now)):
            yield from _differences(before.get(key), now.get(key), (*path, key))
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for position, (one, other) in enumerate(zip(before, now, strict=True)):
            yield from _differences(one, other, (*path, str(position)))
    elif before != now:
        yield f'`{".".join(path)}` was {json.dumps(before)}, now it is {json.dumps(now)}'
