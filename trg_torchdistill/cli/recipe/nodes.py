"""Where each value of a YAML text stands: a tree of nodes with their first and last character.

PyYAML's own tree forgets where an alias stands, and ends a block only where the next one starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

MERGE = '<<'


@dataclass(eq=False)
class Node:
    """One value in a YAML text.

    Attributes:
        kind: ``scalar``, ``mapping``, ``sequence`` or ``alias``.
        start: Index of its first character, its anchor and tag included.
        end: Index after its last character; comments and blank lines after it do not count.
        column: Column of its first key or item; of an empty one and of a scalar, of ``start``.
        flow: Whether it is written in brackets or braces.
        anchor: Name of its anchor, or of the anchor an alias stands for.
        text: Value of a scalar.
        keys: Names of the keys of a mapping, one for each of ``values``.
        values: Values of a mapping, items of a sequence.
        target: What an alias stands for.
        first: Index of the first key of a mapping.
    """

    kind: str
    start: int
    end: int
    column: int
    flow: bool = True
    anchor: str | None = None
    text: str = ''
    keys: list[str] = field(default_factory=list)
    values: list[Node] = field(default_factory=list)
    target: Node | None = None
    first: int = 0

    def walk(self) -> Iterator[Node]:
        """Yields the node and all below it; an alias is not followed."""
        yield self
        for value in self.values:
            yield from value.walk()


def compose(text: str) -> Node:
    """Returns the root of the only document in a YAML text.

    Raises:
        yaml.YAMLError: If it is no YAML, or holds more than one document.
    """
    events: list[Any] = list(yaml.parse(text, Loader=yaml.FullLoader))
    if sum(isinstance(event, yaml.DocumentStartEvent) for event in events) != 1:
        raise yaml.YAMLError('expected one document')
    return _Composer(text, events[3:]).node(events[2])


class _Composer:
    """Builds the nodes from PyYAML's events, which know where they stand."""

    def __init__(self, text: str, events: list[Any]) -> None:
        self.text = text
        self.events = iter(events)
        self.anchors: dict[Any, Node] = {}

    def node(self, event: Any) -> Node:
        """Returns the node that begins with an event."""
        start, end = event.start_mark.index, event.end_mark.index
        node = Node('scalar', start, end, event.start_mark.column, anchor=event.anchor)
        if isinstance(event, yaml.AliasEvent):
            node.kind, node.target = 'alias', self.anchors[event.anchor]
            return node
        if isinstance(event, yaml.ScalarEvent):
            node.text = event.value
            node.end = start + len(self.text[start:end].rstrip())
        else:
            node.kind = 'mapping' if isinstance(event, yaml.MappingStartEvent) else 'sequence'
            node.flow = bool(event.flow_style)
            self._fill(node)
        if node.anchor is not None:
            self.anchors[node.anchor] = node
        return node

    def _fill(self, node: Node) -> None:
        for event in self.events:
            end = event.end_mark.index
            if isinstance(event, yaml.CollectionEndEvent):
                node.end = end if node.flow else node.end
                return
            item = self.node(event)
            if not node.values:
                node.first = item.start
                node.column = self._column(node, item, event.start_mark.column)
            if node.kind == 'mapping':
                node.keys.append((item.target or item).text)
                item = self.node(next(self.events))
            node.values.append(item)
            node.end = max(node.end, item.end)

    def _column(self, node: Node, first: Node, column: int) -> int:
        if node.kind == 'mapping' or node.flow:
            return column
        dash = self.text.rfind('-', 0, first.start)
        return dash - self.text.rfind('\n', 0, dash) - 1
