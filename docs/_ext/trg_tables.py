"""Tables that the code writes: keys from the registration table, keywords from docstrings, options from the parsers."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

from docutils import nodes
from keywords import keyword_rows, split_arguments
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from trg_torchdistill.registration import TABLE
from trg_torchdistill_cli import parsers


class Keys(SphinxDirective):
    """The registration table."""

    def run(self) -> list[nodes.Node]:
        """Returns the table of kind, key and description."""
        rows = [(entry.kind, f'{{py:obj}}`{entry.key} <.{entry.key}>`', entry.description) for entry in TABLE]
        return _table(self, ('kind', 'key', 'what it is'), rows)


class Options(SphinxDirective):
    """The arguments of a sub-command."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Returns the table of arguments and their help."""
        parser = parsers('')[1][self.arguments[0]]
        importlib.import_module(f'trg_torchdistill.cli.{self.arguments[0]}.command').add_arguments(parser)
        rows = [(f'`{_words(action)}`', action.help) for action in parser._actions if action.dest != 'help']
        return _table(self, ('argument', 'meaning'), rows)


def _words(action: argparse.Action) -> str:
    names = ', '.join(action.option_strings)
    if action.nargs == 0:
        return names
    choices = '|'.join(map(str, action.choices or ()))
    value = action.metavar or choices or action.dest.upper()
    return f'{names} {value if isinstance(value, str) else " ".join(value)}'.strip()


def _table(directive: SphinxDirective, head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[nodes.Node]:
    lines = [head, ('---',) * len(head), *rows]
    text = '\n'.join('| ' + ' | '.join(cell.replace('|', r'\|') for cell in line) + ' |' for line in lines)
    return directive.parse_text_to_nodes(text)


def tabulate(app: Sphinx, what: str, name: str, target: Any, options: Any, lines: list[str]) -> None:
    """Makes the arguments in the docstring of a class a table with their defaults."""
    before, texts, after = split_arguments(lines)
    if what != 'class' or not texts:
        return
    rows = [('keyword', 'default', 'meaning'), *keyword_rows(target, texts)]
    table = ['.. list-table::', '   :header-rows: 1', '   :widths: auto', '']
    for index, (keyword, default, meaning) in enumerate(rows):
        literal = '``{}``' if index else '{}'
        table += [
            f'   * - {literal.format(keyword)}',
            f'     - {default and literal.format(default)}',
            f'     - {meaning}',
        ]
    lines[:] = [*before, *table, '', *after]


def without_signature(app: Sphinx, what: str, *rest: Any) -> tuple[str, str] | None:
    """Leaves out the signature of a class, which its table has."""
    return ('', '') if what == 'class' else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the directives and the two handlers of docstrings."""
    app.add_directive('keys', Keys)
    app.add_directive('options', Options)
    app.connect('autodoc-process-docstring', tabulate, priority=400)  # before napoleon
    app.connect('autodoc-process-signature', without_signature)
    return {'parallel_read_safe': True}
