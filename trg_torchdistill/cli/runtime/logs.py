"""Where the host's log goes: warnings to the console, everything to ``--run_log``."""

from __future__ import annotations

import contextlib
import logging
import os
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from torchdistill.common.constant import LOGGING_FORMAT

from trg_torchdistill.errors import RunError, TRGError, explained

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def logging_to(run_log: str | None, rank: int = 0) -> Iterator[None]:
    """Sets the handlers of the root logger, which is the host's, and takes them away after the block.

    An error that leaves the block is written to the file with its traceback.

    Args:
        run_log: File to which lines are added, None for none.
        rank: Number of this process; all but the first one show only errors, with their number.

    Raises:
        TRGError: If there can be no such file.
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
        with explained(f'expected `--run_log` to be a file that can be written, got {path}', 'choose another name'):
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
    except Exception:
        logger.info('ended by an error', exc_info=True)
        raise
    finally:
        root.setLevel(level)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()


@contextlib.contextmanager
def traceback_kept(file: Path, run_log: str | None, kept: Callable[[], str]) -> Iterator[None]:
    """Says where the traceback is, and what is kept, when the code of others raises inside the block.

    Args:
        file: Gets the traceback where there is no ``run_log``, if its folder exists.
        run_log: File of :func:`logging_to`.
        kept: Returns what to say of the state of the run, or nothing.
    """
    try:
        yield
    except RunError:
        raise
    except TRGError as error:
        if error.__cause__ is None or isinstance(error.__cause__, TRGError):
            raise
        place: Path | str | None = run_log
        if run_log is None:
            with contextlib.suppress(OSError):
                file.write_text(''.join(traceback.format_exception(error)), encoding='utf-8')
                place = file
        parts = [str(error), kept(), '' if place is None else f'the traceback is in {place}']
        raise TRGError('; '.join(filter(None, parts))) from error.__cause__


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Drops what is printed, as a data set does about its download, and python's warnings."""
    with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield
