"""Lines of a report, no longer than a terminal is wide."""

from __future__ import annotations

import textwrap

WIDTH = 80
NO_BREAK = '\N{NO-BREAK SPACE}'


def wrapped(text: str, indent: int = 2, first: str = '') -> list[str]:
    """Returns a text in lines, all but the first indented; a path and "(line 12)" stay whole."""
    lines = textwrap.wrap(
        text.replace('(line ', f'(line{NO_BREAK}'),
        WIDTH,
        initial_indent=first,
        subsequent_indent=' ' * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(NO_BREAK, ' ') for line in lines]
