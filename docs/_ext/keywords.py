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

    Raises:
        ValueError: If the docstring has another list of keywords.
    """
    parameters = inspect.signature(target).parameters
    if list(parameters) != list(texts):
        raise ValueError(f'expected the `Args:` of {target.__name__} to be {list(parameters)}, got {list(texts)}')
    return [(name, _default(parameter), texts[name]) for name, parameter in parameters.items()]


def _default(parameter: inspect.Parameter) -> str:
    if parameter.default is parameter.empty:
        return ''
    return str(yaml.safe_dump(parameter.default)).removesuffix('...\n').strip()
