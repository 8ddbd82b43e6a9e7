"""Links to files of the repository that are no pages of the site: looked up, then led to where they can be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging

ROOT = Path(__file__).parents[2]
PAGES = {'README.md': 'index', 'CONTRIBUTING.md': 'developing', 'CHANGELOG.md': 'changes'}
PAGES['configs/official/README.md'] = 'official'
logger = logging.getLogger(__name__)


class RepositoryLinks(SphinxPostTransform):
    """Gives each a page, the highlighted source, the repository or a copy; a folder without a repository is text."""

    default_priority = 8  # before myst_parser's own

    def run(self, **kwargs: Any) -> None:
        """Replaces the links of a page."""
        for kind in (addnodes.pending_xref, addnodes.download_reference):
            for node in list(self.document.findall(kind)):
                target = node['reftarget']
                if node['reftype'] == 'myst' and target not in self.env.all_docs and not target.startswith('#'):
                    self._replace(node)

    def _replace(self, node: nodes.Element) -> None:
        target = node['reftarget'].split('#')[0] + ('.md' if node.get('refdomain') == 'doc' else '')
        path = (Path(node.source or node.parent.source).parent / target).resolve()  # of an included file its own
        if not path.exists():
            logger.warning('no such file in the repository: %s', target, location=node)
            return
        uri = self._uri(path.relative_to(ROOT).as_posix())
        if not uri and isinstance(node, addnodes.download_reference):
            return
        link = nodes.reference(refuri=uri, internal=True) if uri else nodes.inline()
        link += [child.deepcopy() for child in node[0].children]
        node.replace_self(link)

    def _uri(self, name: str) -> str:
        module = name.removesuffix('.py').removesuffix('/__init__').replace('/', '.')
        page = PAGES.get(name, name.removeprefix('docs/').removesuffix('.md'))
        if page in self.env.all_docs:
            return self._relative(page)
        if getattr(self.env, '_viewcode_modules', {}).get(module):
            return self._relative(f'_modules/{module.replace(".", "/")}')
        return f'{self.config.repository_url}/{name}' if self.config.repository_url else ''

    def _relative(self, page: str) -> str:
        return str(self.app.builder.get_relative_uri(self.env.docname, page))


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the transform, and the address that it uses."""
    app.add_config_value('repository_url', '', 'env')
    app.add_post_transform(RepositoryLinks)
    return {'parallel_read_safe': True}
