"""Writes plain values as YAML in the style of torchdistill's configurations."""

from __future__ import annotations

import math
from typing import Any

import yaml

from trg_torchdistill.cli.recipe.deferred import Deferred

REPRESENTER = yaml.representer.SafeRepresenter()


class Inline(dict[str, Any]):
    """A mapping to be written on one line, in braces."""


def inline(value: Any) -> str:
    """Returns a value on one line."""
    if isinstance(value, Deferred):
        return f'{value.tag} {inline(value.content)}'
    if isinstance(value, dict):
        return '{' + ', '.join(f'{key_text(key)}: {inline(item)}' for key, item in value.items()) + '}'
    if isinstance(value, (list, tuple)):
        return '[' + ', '.join(inline(item) for item in value) + ']'
    if isinstance(value, float):
        return str(REPRESENTER.represent_float(value).value)
    if isinstance(value, str):
        return _quoted(value)
    return 'null' if value is None else str(value)


def entry(key: Any, value: Any, column: int) -> list[str]:
    """Returns the lines of ``key: value`` in a block that begins at ``column``."""
    return block(value, column, f'{" " * column}{key_text(key)}:')


def item(value: Any, column: int) -> list[str]:
    """Returns the lines of ``- value`` in a block that begins at ``column``."""
    if _fits_on_a_line(value):
        return [f'{" " * column}- {inline(value)}']
    lines = block(value, column, '')
    lines[1] = f'{" " * column}- {lines[1].lstrip()}'
    return lines[1:]


def block(value: Any, column: int, head: str) -> list[str]:
    """Returns ``head`` with a value behind it, and below it, further in than ``column``, what takes more lines."""
    if value is None:
        return [head]
    if isinstance(value, dict) and not _fits_on_a_line(value):
        return [head, *(line for key, inner in value.items() for line in entry(key, inner, column + 2))]
    if isinstance(value, list) and not _fits_on_a_line(value):
        return [head, *(line for inner in value for line in item(inner, column + 2))]
    return [f'{head} {inline(value)}']


def _fits_on_a_line(value: Any) -> bool:
    if isinstance(value, Inline) or not value:
        return True
    if isinstance(value, list):
        return not any(isinstance(inner, (dict, Deferred)) for inner in value)
    return not isinstance(value, dict)


def key_text(key: Any) -> str:
    """Returns a key, in quotes only where it needs them."""
    plain = isinstance(key, str) and key.replace('_', 'a').replace('/', 'a').isalnum() and not key[0].isdigit()
    return str(key) if plain or not isinstance(key, str) else _quoted(key)


def _quoted(text: str) -> str:
    """Returns a text in single quotes; in double ones, with escapes, if a character in it cannot be printed."""
    if text.isprintable():
        return "'" + text.replace("'", "''") + "'"
    return yaml.dump(text, default_style='"', width=math.inf).rstrip('\n')
