"""The site: `make docs`, from a bare clone, with warnings as errors."""

import sys
from importlib.metadata import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / '_ext'))

from trg_torchdistill import __version__ as release

project = 'trg_torchdistill'
html_title = f'trg_torchdistill {release}'
extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
    'trg_tables',
    'trg_links',
    'trg_mathml',
]
exclude_patterns = ['_build', '_ext']
html_theme = 'furo'
html_show_copyright = False
html_static_path = ['_static']
html_css_files = ['site.css']

myst_enable_extensions = ['dollarmath']
myst_heading_anchors = 4

autodoc_member_order = 'bysource'
autodoc_typehints = 'none'
napoleon_use_ivar = True
html_math_renderer = 'mathml'
nitpicky = True
nitpick_ignore = [('py:meth', 'forward')]  # of a loss, which the page of `RelationLoss` has
nitpick_ignore_regex = [('py:.*', r'torch\b.*')]

# Where the links to files of the repository that are no pages lead; without it to a copy, and of folders nowhere.
urls = dict(url.split(', ') for url in metadata(project).get_all('Project-URL', []))
repository_url = urls.get('Source', '')
