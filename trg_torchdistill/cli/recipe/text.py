"""Reads the text of a YAML file, and builds what its tags name as the host does; what fails is told with its line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from torchdistill.common import yaml_util

from trg_torchdistill.errors import TRGError, explained, placed
from trg_torchdistill.files import shown_path

HOST_TAGS = {
    f'!{name.removeprefix("yaml_")}': function for name, function in vars(yaml_util).items() if name.startswith('yaml_')
}
# Words in the name of an argument whose value is a file or a folder.
PATH_WORDS = ('root', 'path', 'dir', 'file', 'folder')


class BuildingLoader(yaml.FullLoader):
    """The host's YAML loader, except that a tag which fails says where it stands."""


def read_text(path: str) -> tuple[Path, str]:
    """Returns the file of a YAML and what stands in it, with the line ends as they are.

    Raises:
        TRGError: If there is no such file, or it is no text in UTF-8.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise TRGError(f'expected CONFIG to be a YAML file, got {shown_path(path)}, which does not exist or is no file')
    with explained(f'expected CONFIG to be a YAML file, got {path}', 'make it readable'):
        content = file.read_bytes()
    try:
        return file, content.decode('utf-8')
    except UnicodeDecodeError as error:
        line = content.count(b'\n', 0, error.start) + 1
        raise TRGError(
            f'expected CONFIG to be a YAML file in UTF-8, got {path} with the byte 0x{content[error.start]:02x} on '
            f'line {line}; save it in that encoding'
        ) from None


def build(text: str) -> Any:
    """Returns what a YAML text holds, with every tag carried out."""
    return yaml.load(text, Loader=BuildingLoader)


def contents(loader: yaml.constructor.BaseConstructor, node: yaml.Node) -> Any:
    """Returns the mapping, list or text behind a tag."""
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node)  # type: ignore[arg-type]


def tag_name(tag: str, content: Any) -> str:
    """Returns a tag with the key of what it names, for a message."""
    key = content.get('key') if isinstance(content, dict) else None
    return f'`{tag}`' if key is None else f'`{tag}` of {key!r}'


def start_of_paths(content: Any) -> str:
    """Returns where the relative paths among the arguments behind a tag start, for the end of a message, if any."""
    return f'; relative paths in it start at {Path.cwd()}' if _has_relative_path(content) else ''


def _naming(construct: Callable[[Any, yaml.Node], Any]) -> Callable[[Any, yaml.Node], Any]:
    """Returns a constructor that tells of which tag it was when it fails."""

    def construct_named(loader: yaml.FullLoader, node: yaml.Node) -> Any:
        content = contents(loader, node)  # tags inside are carried out here, once, and tell of themselves
        what = f'{tag_name(node.tag, content)} (line {node.start_mark.line + 1}) failed'
        with placed(what, f'correct it{start_of_paths(content)}'):
            return construct(loader, node)

    return construct_named


def _has_relative_path(content: Any, name: str = '') -> bool:
    if isinstance(content, dict):
        return any(_has_relative_path(value, str(key)) for key, value in content.items())
    if isinstance(content, (list, tuple)):
        return any(_has_relative_path(value, name) for value in content)
    if not isinstance(content, str) or '://' in content or Path(content).expanduser().is_absolute():
        return False
    return '/' in content or content.startswith('.') or any(word in name for word in PATH_WORDS)


def problem(error: yaml.YAMLError, text: str) -> str:
    """Returns where and why a text is no YAML, for the end of a message."""
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count('\n', 0, error.position) + 1
        return f' on line {line}: the character {chr(error.character)!r}, which is not allowed'
    mark = getattr(error, 'problem_mark', None)
    where = '' if mark is None else f' on line {mark.line + 1}'
    return f'{where}: {getattr(error, "problem", None) or error}'


for _tag, _construct in HOST_TAGS.items():
    BuildingLoader.add_constructor(_tag, _naming(_construct))
