"""Writes a file whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Opens a stream whose content becomes ``path`` when the block ends without an error.

    Until then, and after an error, an older file stays as it is; the new one is on the disk before it takes its place.

    Args:
        path: File to write, in a folder that exists.
    """
    temporary = path.with_name(f'{path.name}.tmp')
    try:
        with temporary.open('wb') as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
