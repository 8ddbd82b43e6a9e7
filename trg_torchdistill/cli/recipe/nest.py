"""Puts a block of a YAML text one level deeper, as it is written: with its comments, anchors and aliases."""

from __future__ import annotations

from typing import Any

from trg_torchdistill.cli.recipe.config import value_at
from trg_torchdistill.cli.recipe.deferred import parse_deferred
from trg_torchdistill.cli.recipe.edit import EditError, differ, unshared
from trg_torchdistill.cli.recipe.nodes import Node, compose

INDENT = 4


def nest(text: str, path: tuple[str, ...], key: str, name: str) -> str:
    """Returns a text in which the mapping at ``path`` stands under ``kwargs.NAME`` of a new block with a ``key``.

    Raises:
        EditError: If that cannot be done without changing more, as where the block is part of an alias.
    """
    if not text.endswith('\n'):
        text += '\n'
    node = compose(text)
    for step in path:
        if step not in node.keys:
            raise EditError(f'`{".".join(path)}` is written elsewhere, under an alias')
        node = node.values[node.keys.index(step)]
    if node.flow:
        block = text[node.start : node.end]
        changed = f"{text[: node.start]}{{key: '{key}', kwargs: {{{name}: {block}}}}}{text[node.end :]}"
    else:
        changed = _nested_block(text, node, key, name)
    wanted = unshared(parse_deferred(text))
    parent: Any = value_at(wanted, path[:-1])
    parent[path[-1]] = {'key': key, 'kwargs': {name: parent[path[-1]]}}
    if differ(wanted, parse_deferred(changed)):
        raise EditError(f'`{".".join(path)}` cannot be put under `{name}:`')
    return changed


def _nested_block(text: str, node: Node, key: str, name: str) -> str:
    newline = '\r\n' if '\r\n' in text else '\n'
    start = text.rindex('\n', 0, node.first) + 1
    end = text.index('\n', node.end)
    anchor = text[node.start : start].strip()
    before, space = (text[: node.start].rstrip() + newline, ' ') if anchor else (text[:start], '')
    head = [f"key: '{key}'", 'kwargs:', f'  {name}:{space}{anchor}']
    body = [' ' * INDENT + line if line.strip() else line for line in text[start:end].split('\n')]
    return before + ''.join(' ' * node.column + line + newline for line in head) + '\n'.join(body) + text[end:]
