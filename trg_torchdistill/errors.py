"""The one kind of error that users of the package meet: their own mistakes, told with the line to change."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator

MAX_FOREIGN_TEXT = 400


class TRGError(ValueError, TypeError):
    """A mistake that its user can mend; the message says what was expected, what was found and what to change.

    It is a ``ValueError`` and a ``TypeError``, so that handlers of either take it. Anything else that the package
    raises is a fault of its own. Where a model, a loss or a data set of the user raised something first, that is the
    ``__cause__``.

    Attributes:
        exit_code: Of the command line: 2 for a mistake in a YAML or on the command line.
    """

    exit_code = 2


class RunError(TRGError):
    """What keeps a correct YAML from running to its end: a full disk, a loss that is not finite, a lost process."""

    exit_code = 1


@contextlib.contextmanager
def explained(what: str, line: str = '') -> Iterator[None]:
    """Turns whatever the code of others raises inside into a :class:`TRGError`; one of ours passes as it is.

    Args:
        what: What failed, the beginning of the message; the type and the text of the foreign exception follow.
        line: What to change, the end of the message.
    """
    try:
        yield
    except TRGError:
        raise
    except Exception as error:
        raise TRGError(f'{what}, {told(error)}{line and f"; {line}"}') from error


@contextlib.contextmanager
def placed(what: str, line: str = '') -> Iterator[None]:
    """As :func:`explained`; a mistake that an object of ours tells, which knows no YAML, is told with both as well."""
    with explained(what, line):
        try:
            yield
        except TRGError as error:
            raise TRGError(f'{what}: {error}{line and f"; {line}"}') from error


def told(error: BaseException) -> str:
    """Returns type and text of an exception on one line; a sentence in a ``KeyError`` is not shown in quotes."""
    first = error.args[0] if isinstance(error, KeyError) and error.args else None
    text = first if isinstance(first, str) and ' ' in first else str(error)
    return f'{type(error).__name__}: {textwrap.shorten(text, MAX_FOREIGN_TEXT, placeholder=" ...") or "no message"}'
