"""The parts of the site that the code writes: keys, keywords and options; and its links to files of the repository."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from keywords import keyword_rows, split_arguments
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.writers.html5 import HTML5Translator

from trg_torchdistill.registration import TABLE
from trg_torchdistill_cli import parsers

ROOT = Path(__file__).parents[2]
PAGES = {'README.md': 'index', 'CONTRIBUTING.md': 'developing', 'CHANGELOG.md': 'changes'}
logger = logging.getLogger(__name__)


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


class RepositoryLinks(SphinxPostTransform):
    """Links to files of the repository that are no pages of the site: looked up, then led to where they can be read."""

    default_priority = 8  # before myst_parser's own

    def run(self, **kwargs: Any) -> None:
        """Replaces each by a link to a page, to the highlighted source, to the repository, or by its text."""
        for node in [
            *self.document.findall(addnodes.pending_xref),
            *self.document.findall(addnodes.download_reference),
        ]:
            if (
                node['reftype'] == 'myst'
                and node['reftarget'] not in self.env.all_docs
                and node['reftarget'][:1] != '#'
            ):
                self._replace(node)

    def _replace(self, node: nodes.Element) -> None:
        target = node['reftarget'].split('#')[0] + ('.md' if node.get('refdomain') == 'doc' else '')
        folder = Path(self.env.doc2path(self.env.docname)).parent
        found = [path for path in ((folder / target).resolve(), ROOT / target) if path.exists()]
        if not found:
            logger.warning('no such file in the repository: %s', target, location=node)
            return
        uri = self._uri(found[0].relative_to(ROOT).as_posix())
        link = nodes.reference(refuri=uri, internal=True) if uri else nodes.inline()
        link += [child.deepcopy() for child in node[0].children]
        node.replace_self(link)

    def _uri(self, name: str) -> str:
        module = name.removesuffix('.py').removesuffix('/__init__').replace('/', '.')
        if name in PAGES:
            return self._relative(PAGES[name])
        if getattr(self.env, '_viewcode_modules', {}).get(module):
            return self._relative(f'_modules/{module.replace(".", "/")}')
        return f'{self.config.repository_url}/{name}' if self.config.repository_url else ''

    def _relative(self, page: str) -> str:
        return str(self.app.builder.get_relative_uri(self.env.docname, page))


def mathml(visitor: HTML5Translator, node: nodes.math | nodes.math_block) -> None:
    """Writes a formula as MathML, which browsers draw themselves: no script, no network, no LaTeX."""
    try:
        visitor.body.append(tex2mathml(node.astext(), as_block=isinstance(node, nodes.math_block)))
    except MathError as error:
        logger.warning('%s in the formula %s', error, node.astext(), location=node)
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers all of it with sphinx."""
    app.add_config_value('repository_url', '', 'env')
    app.add_directive('keys', Keys)
    app.add_directive('options', Options)
    app.add_html_math_renderer('mathml', (mathml, None), (mathml, None))
    app.add_post_transform(RepositoryLinks)
    app.connect('autodoc-process-docstring', tabulate, priority=400)  # before napoleon
    app.connect('autodoc-process-signature', without_signature)
    return {'parallel_read_safe': True}
