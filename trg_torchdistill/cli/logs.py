"""Where the host's log goes: warnings to the console, everything to ``--run_log``."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from torchdistill.common.constant import LOGGING_FORMAT


@contextlib.contextmanager
def logging_to(run_log: str | None) -> Iterator[None]:
    """Sets the handlers of the root logger, which is the host's, and takes them away after the block.

    Args:
        run_log: File to which lines are added, None for none.
    """
    root = logging.getLogger()
    level = root.level
    console = logging.StreamHandler()
    console.setLevel(logging.WARNING)
    console.setFormatter(logging.Formatter('%(levelname)s %(name)s: %(message)s'))
    handlers: list[logging.Handler] = [console]
    if run_log is not None:
        path = Path(run_log).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(path, encoding='utf-8')
        file.setFormatter(logging.Formatter(LOGGING_FORMAT))
        handlers.append(file)
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.setLevel(level)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()
