"""Keeps the models that are only looked at off the network."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Refuses connections inside the block, so that a model which asks for its weights says so."""
    connect = socket.socket.connect

    def refuse(*_: Any) -> None:
        raise ConnectionError('nothing is downloaded here, and it asked for a connection')

    socket.socket.connect = refuse  # type: ignore[method-assign]
    try:
        yield
    finally:
        socket.socket.connect = connect  # type: ignore[method-assign]
