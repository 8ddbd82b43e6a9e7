"""Keeps what looks at a YAML off the network."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any


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
