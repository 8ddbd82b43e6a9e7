"""Changes a YAML text so that it holds other values, and touches nothing else in it.

The values wanted are compared with those that stand there. Only what differs is written, into the text itself, so that
comments, quotes, tags, anchors, aliases and the order of the keys stay byte for byte. What is shared by an alias is
never changed for its other users: where they must differ, the alias is written out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import yaml

from trg_torchdistill.cli.recipe.deferred import Deferred, parse_deferred
from trg_torchdistill.cli.recipe.nodes import MERGE, Node, compose
from trg_torchdistill.cli.recipe.render import block, entry, inline, item, key_text
from trg_torchdistill.errors import TRGError

MISSING = object()


class EditError(TRGError):
    """The text cannot be changed to hold the values without changing more than that."""


def edit_text(text: str, wanted: Any) -> str:
    """Returns a YAML text changed to hold ``wanted``.

    Args:
        text: A YAML text.
        wanted: What :func:`~trg_torchdistill.cli.recipe.deferred.parse_deferred` shall make of it: the values it holds
            now, with keys and items added and values replaced. A new key comes after the key before it.

    Raises:
        EditError: If that is impossible, such as the removal of a key.
    """
    if not text.endswith('\n'):
        text += '\n'
    lost: set[int] = set()
    while True:
        editor = _Editor(text, wanted, lost)
        changed = editor.run()
        if editor.lost <= lost:
            break
        lost |= editor.lost
    try:
        found = parse_deferred(changed)
    except yaml.YAMLError as error:
        raise EditError(f'the changed text is no YAML any more: {error}') from error
    difference = next(itertools.chain(*list_changes(wanted, found)), None)
    if difference is not None:
        raise EditError(f'the changed text holds something else at `{difference}`')
    return changed


def unshared(value: Any) -> Any:
    """Returns a copy in which no mapping or list stands in two places; a :class:`Deferred` stays the same object."""
    if isinstance(value, dict):
        return {key: unshared(inner) for key, inner in value.items()}
    return [unshared(inner) for inner in value] if isinstance(value, list) else value


def list_changes(before: Any, after: Any, path: str = '') -> tuple[list[str], list[str], list[str]]:
    """Returns the paths that were added, replaced and removed between two values; what is inside them is not listed.

    A key that held nothing and gets a value counts as added.
    """
    added: list[str] = []
    replaced: list[str] = []
    removed: list[str] = []
    if isinstance(before, list) and isinstance(after, list):
        before, after = dict(enumerate(before)), dict(enumerate(after))
    if not (isinstance(before, dict) and isinstance(after, dict)):
        is_equal = type(before) is type(after) and before == after
        return added, [] if is_equal else [path], removed
    for key in [*before, *(key for key in after if key not in before)]:
        where = f'{path}.{key}'.lstrip('.')
        if key not in before or (before[key] is None and after.get(key) is not None):
            added.append(where)
        elif key not in after:
            removed.append(where)
        else:
            inner = list_changes(before[key], after[key], where)
            added, replaced, removed = added + inner[0], replaced + inner[1], removed + inner[2]
    return added, replaced, removed


def differ(left: Any, right: Any) -> bool:
    """Whether two values differ anywhere, or in type."""
    return any(list_changes(left, right))


class _Editor:
    """One round over the text. Values are compared by what an anchored node shall hold where it stands."""

    def __init__(self, text: str, wanted: Any, lost: set[int]) -> None:
        self.text, self.wanted, self.known_lost = text, wanted, lost
        self.root = compose(text)
        self.lost: set[int] = set()
        self.targets: dict[int, Any] = {}
        self.patches: list[tuple[int, int, str]] = []

    def run(self) -> str:
        """Returns the text with all patches."""
        self._note_targets(self.root, self.wanted)
        self._visit(self.root, parse_deferred(self.text), self.wanted, 0)
        changed, newline = self.text, '\r\n' if '\r\n' in self.text else '\n'
        # From the end of the text to its beginning; of several at one place, the last first.
        for start, end, replacement in reversed(sorted(self.patches, key=lambda patch: patch[0])):
            changed = changed[:start] + replacement.replace('\n', newline) + changed[end:]
        return changed

    def _note_targets(self, node: Node, wanted: Any) -> None:
        if node.anchor is not None and node.target is None and wanted is not MISSING:
            self.targets[node.start] = wanted
        for key, value in _children(node):
            self._note_targets(value, _at(wanted, key))

    def _visit(self, node: Node, held: Any, wanted: Any, column: int) -> None:
        if node.target is not None:
            shared = self.targets.get(node.target.start, wanted)
            if node.target.start in self.known_lost or differ(shared, wanted):
                self._replace(node, wanted, column)
        elif isinstance(held, dict) and isinstance(wanted, dict) and wanted and (held or node.anchor is not None):
            self._visit_mapping(node, held, wanted)
        elif isinstance(held, list) and isinstance(wanted, list) and len(wanted) >= len(held):
            for index, value in enumerate(node.values):
                self._visit(value, held[index], wanted[index], node.column)
            if len(wanted) > len(held):
                self._append(node, wanted[len(held) :])
        elif differ(held, wanted):
            self._replace(node, wanted, column)

    def _visit_mapping(self, node: Node, held: dict[Any, Any], wanted: dict[Any, Any]) -> None:
        names = {str(key): key for key in held}
        own = {names.get(key, key): value for key, value in zip(node.keys, node.values, strict=True)}
        merged = own.pop(MERGE, None)
        inherited = {} if merged is None else self._inherited(merged)
        for key in [*own, *inherited]:
            if key not in wanted:
                raise EditError(f'the key `{key}` cannot be removed')
        before = merged
        for key, value in wanted.items():
            if key in own:
                self._visit(own[key], held[key], value, node.column)
                before = own[key]
            elif key not in inherited or differ(inherited[key], value):
                self._insert(node, before, key, value)

    def _inherited(self, merged: Node) -> dict[Any, Any]:
        """Returns what ``<<`` will give a mapping: the values that its sources shall hold."""
        found: dict[Any, Any] = {}
        for source in merged.values if merged.kind == 'sequence' else [merged]:
            if source.target is None or source.target.start in self.known_lost:
                raise EditError('a `<<:` names no alias, or one of an anchor that is replaced')
            found = {**self.targets[source.target.start], **found}
        return found

    def _insert(self, node: Node, before: Node | None, key: Any, value: Any) -> None:
        """Writes a new key behind the value ``before``, or in front of the first key."""
        if not node.flow:
            at = node.first - node.column if before is None else self._next_line(before.end)
            blank = [''] if before is None and node is self.root else []
            self.patches.append((at, at, ''.join(f'{line}\n' for line in [*entry(key, value, node.column), *blank])))
            return
        text = f'{key_text(key)}: {inline(value)}'
        if before is not None:
            self.patches.append((before.end, before.end, f', {text}'))
        else:
            at = node.first if node.values else self.text.rindex('}', node.start, node.end)
            self.patches.append((at, at, f'{text}, '))

    def _append(self, node: Node, values: list[Any]) -> None:
        if not node.flow:
            at = self._next_line(node.end)
            self.patches.append((at, at, ''.join(f'{line}\n' for value in values for line in item(value, node.column))))
            return
        at = node.values[-1].end if node.values else self.text.rindex(']', node.start, node.end)
        text = ', '.join(inline(value) for value in values)
        self.patches.append((at, at, f', {text}' if node.values else text))

    def _replace(self, node: Node, wanted: Any, column: int) -> None:
        self.lost |= {below.start for below in node.walk() if below.anchor is not None and below.target is None}
        start = len(self.text[: node.start].rstrip())
        own_line = '\n' in self.text[start : node.start]
        before = self.text[start - 1 : start]
        if before in '[{,' or self._inside_flow(node):
            start, lines = node.start, [inline(wanted)]
            if before == ':' and start == len(self.text[:start].rstrip()):
                lines = [f' {lines[0]}']
        elif node.target is not None and self._extends(node.target, wanted):
            lines = ['', f'{" " * (column + 2)}{MERGE}: *{node.anchor}']
            shared = self.targets[node.target.start]
            for key, value in wanted.items():
                if key not in shared or differ(shared[key], value):
                    lines += entry(key, value, column + 2)
        else:
            lines = block(wanted, column, '')
            if own_line and wanted is not None and len(lines) == 1:
                lines = ['', f'{" " * (column + 2)}{lines[0].lstrip()}']
        self.patches.append((start, node.end, '\n'.join(lines)))

    def _extends(self, target: Node, wanted: Any) -> bool:
        """Whether a value is a mapping that holds all keys of an anchored one, so that ``<<`` can name that."""
        shared = self.targets.get(target.start)
        if target.start in self.known_lost or not isinstance(shared, dict) or not isinstance(wanted, dict):
            return False
        return bool(shared) and all(key in wanted for key in shared)

    def _inside_flow(self, node: Node) -> bool:
        return any(
            outer is not node and outer.flow and outer.values and outer.start < node.start and node.end <= outer.end
            for outer in self.root.walk()
        )

    def _next_line(self, index: int) -> int:
        return self.text.index('\n', index) + 1


def _children(node: Node) -> Iterator[tuple[Any, Node]]:
    if node.kind == 'mapping':
        yield from zip(node.keys, node.values, strict=True)
    elif node.kind == 'sequence':
        yield from enumerate(node.values)


def _at(value: Any, key: Any) -> Any:
    """Returns what stands at a key or position; MISSING where a tag made something else of the list or mapping."""
    if isinstance(value, Deferred):
        value = value.content
    if isinstance(value, dict):
        by_name = {str(name): name for name in value}
        return value.get(by_name.get(key, key), MISSING)
    return value[key] if isinstance(value, list) and isinstance(key, int) and key < len(value) else MISSING
