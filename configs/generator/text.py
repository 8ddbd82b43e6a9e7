"""YAML as text, in the form of torchdistill's samples."""

from __future__ import annotations

from textwrap import indent
from typing import Any


def block(values: dict[str, Any]) -> str:
    """Plain values in block style, in the order given."""
    lines = []
    for name, value in values.items():
        if isinstance(value, dict) and value:
            lines += [f'{name}:', indent(block(value), '  ')]
        else:
            lines.append(f'{name}: {scalar(value)}'.rstrip())
    return '\n'.join(lines)


def scalar(value: Any) -> str:
    """A value on one line; text that begins with an alias, an anchor or a tag stays as it is."""
    if isinstance(value, str):
        return value if value.startswith(('*', '&', '!')) else f"'{value}'"
    if isinstance(value, list):
        return f'[{", ".join(scalar(item) for item in value)}]'
    return '' if value is None else '{}' if value == {} else f'{value}'


def call(key: str, **kwargs: Any) -> str:
    """An object that is built by its dotted path; an argument may be such an object itself, or a list of them."""
    lines = ['!import_call', f"key: '{key}'", 'init:']
    if kwargs:
        lines.append('  kwargs:')
    for name, value in kwargs.items():
        if isinstance(value, list) and value and isinstance(value[0], str) and value[0].startswith('!'):
            lines += [f'    {name}:', *(indent(f'- {indent(item, "  ").lstrip()}', ' ' * 6) for item in value)]
        elif isinstance(value, str) and value.startswith('!'):
            lines.append(f'    {name}: {indent(value, " " * 6).lstrip()}')
        else:
            lines.append(f'    {name}: {scalar(value)}')
    return '\n'.join(lines)


def compose(*steps: str) -> str:
    """``torchvision.transforms.Compose``."""
    return call('torchvision.transforms.Compose', transforms=list(steps))


def step(name: str, **kwargs: Any) -> str:
    """A transform of torchvision."""
    return call(f'torchvision.transforms.{name}', **kwargs)


def datasets(**named: str) -> str:
    """The ``datasets:`` section; each data set has its split as anchor."""
    entries = [f'&{split} {split}: {text}' for split, text in named.items()]
    return 'datasets:\n' + '\n'.join(indent(entry.replace('\n', '\n  '), '  ') for entry in entries)
