"""Where the host's log goes: warnings to the console, everything to ``--run_log``."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from torchdistill.common.constant import LOGGING_FORMAT


@contextlib.contextmanager
def logging_to(run_log: str | None, rank: int = 0) -> Iterator[None]:
    """Sets the handlers of the root logger, which is the host's, and takes them away after the block.

    Args:
        run_log: File to which lines are added, None for none.
        rank: Number of this process; all but the first one show only errors, with their number.
    """
    root = logging.getLogger()
    level = root.level
    console = logging.StreamHandler()
    console.setLevel(logging.WARNING if rank == 0 else logging.ERROR)
    prefix = '' if rank == 0 else f'process {rank}: '
    console.setFormatter(logging.Formatter(f'{prefix}%(levelname)s %(name)s: %(message)s'))
    handlers: list[logging.Handler] = [console]
    if run_log is not None and rank == 0:
        path = Path(run_log).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(path, encoding='utf-8')
        file.setFormatter(logging.Formatter(LOGGING_FORMAT))
        handlers.append(file)
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        with contextlib.nullcontext() if rank == 0 else _silence():
            yield
    finally:
        root.setLevel(level)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Drops what is printed, as a data set does about its download, and python's warnings."""
    with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield
