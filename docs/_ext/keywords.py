"""What a table of keywords has, from a signature and its docstring, so that it is written nowhere else."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import yaml

ITEM = re.compile(r'    (\*{0,2}\w+): (.*)')


def split_arguments(lines: list[str]) -> tuple[list[str], dict[str, str], list[str]]:
    """Returns a docstring's lines before its section `Args`, the texts of that by name, and the lines after it."""
    if 'Args:' not in lines:
        return lines, {}, []
    start = lines.index('Args:')
    end = start + 1
    texts: dict[str, str] = {}
    while end < len(lines) and (lines[end].startswith('    ') or not lines[end]):
        if item := ITEM.fullmatch(lines[end]):
            name = item[1]
            texts[name] = item[2]
        elif lines[end]:
            texts[name] += ' ' + lines[end].strip()
        end += 1
    return lines[:start], texts, lines[end:]


def keyword_rows(target: Callable[..., Any], texts: dict[str, str]) -> list[tuple[str, str, str]]:
    """Returns the keyword, its default as YAML writes it, and its meaning, of each one of a signature.

    What a docstring does not say, that of a base class does.

    Raises:
        ValueError: If the docstring has another list of keywords.
    """
    parameters = inspect.signature(target).parameters
    inherited = {name: text for name, text in _inherited(target).items() if name in parameters and name not in texts}
    told = [name for name in parameters if name not in inherited]
    if told != list(texts):
        raise ValueError(f'expected the `Args:` of {target.__name__} to be {told}, got {list(texts)}')
    texts = inherited | texts
    return [(name, _default(parameter), texts[name]) for name, parameter in parameters.items()]


def _inherited(target: Callable[..., Any]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for base in getattr(target, '__mro__', ())[:0:-1]:
        texts |= split_arguments((inspect.getdoc(base) or '').splitlines())[1]
    return texts


def _default(parameter: inspect.Parameter) -> str:
    if parameter.default is parameter.empty:
        return ''
    return str(yaml.safe_dump(parameter.default)).removesuffix('...\n').strip()
