"""What setup.cfg cannot say: the page of a package index is the README without what leads into the repository."""

import re
from pathlib import Path

from setuptools import setup

LINK = re.compile(r'(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?://)[^)]*\)')


def index_page(readme: str) -> str:
    """Returns a README without its relative images, and with the words of its relative links alone."""
    return LINK.sub(lambda link: '' if link[1] else link[2], readme)


if __name__ == '__main__':
    readme = Path(__file__).with_name('README.md').read_text(encoding='utf-8')
    setup(long_description=index_page(readme))
