"""Reads a torchdistill YAML without building what it names: each ``!import_call`` stays a note of what to call."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from torchdistill.common import main_util, yaml_util

from trg_torchdistill.cli.recipe.config import Config, UnknownHereError, read_config, value_at
from trg_torchdistill.cli.recipe.text import contents, start_of_paths, tag_name
from trg_torchdistill.errors import TRGError, placed

CONSTRUCTOR = yaml.constructor.FullConstructor
PYTHON_NAME = '!!python/name'


@dataclass(frozen=True)
class Deferred:
    """What stands behind a custom tag of the YAML, not built.

    Attributes:
        tag: The tag, ``!import_call`` for example.
        content: Its mapping, list or text.
    """

    tag: str
    content: Any

    def get(self, *path: str) -> Any:
        """Returns the value at a path in its mapping, None when there is none."""
        return value_at(self.content, path)


class DeferredLoader(yaml.FullLoader):
    """The host's YAML loader, except that tags which import or call something give a :class:`Deferred`.

    The host registers its tags in a loader of PyYAML, for the whole process. This one has the values of YAML from below
    those loaders, and what it does with a tag is listed here alone, whatever was registered elsewhere.
    """


def _defer(loader: yaml.FullLoader, suffix: str, node: yaml.Node) -> Deferred:
    return Deferred(f'!{suffix}', contents(loader, node))


def _defer_name(loader: yaml.FullLoader, suffix: str, node: yaml.Node) -> Deferred:
    return Deferred(PYTHON_NAME, suffix)


DeferredLoader.yaml_constructors = {
    **{tag: make for tag, make in CONSTRUCTOR.yaml_constructors.items() if not str(tag).startswith('!')},
    '!join': yaml_util.yaml_join,
    '!pathjoin': yaml_util.yaml_pathjoin,
    '!expanduser': yaml_util.yaml_expanduser,
    '!abspath': yaml_util.yaml_abspath,
}
DeferredLoader.yaml_multi_constructors = {'tag:yaml.org,2002:python/name:': _defer_name, '!': _defer}

RESOLVERS = {
    '!import_get': lambda content: main_util.import_get(**content),
    '!import_call': lambda content: main_util.import_call(**content),
    '!import_call_method': lambda content: main_util.import_call_method(**content),
    '!getattr': lambda content: getattr(*content),
    '!access_by_index_or_key': lambda content: content['data'][content['index_or_key']],
    PYTHON_NAME: lambda content: main_util.import_get(key=content),
}


def parse_deferred(text: str) -> Any:
    """Returns what a YAML text holds, with every tag that imports or calls something left alone.

    Raises:
        yaml.YAMLError: If it is no YAML.
    """
    return yaml.load(text, Loader=DeferredLoader)


def load_deferred(path: str) -> Config:
    """Reads a YAML file; no data set and no other object named in it is built.

    Raises:
        TRGError: If there is no such file, or it is no YAML mapping.
    """
    return read_config(path, parse_deferred)


def walk(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yields a value and all inside it, in the order of the file, each after its path; tags add nothing to a path."""
    yield path, value
    inside = value.content if isinstance(value, Deferred) else value
    items: Any = inside.items() if isinstance(inside, dict) else ()
    if isinstance(inside, (list, tuple)):
        items = enumerate(inside)
    for key, item in items:
        yield from walk(item, (*path, key))


def deferred_in(value: Any) -> Iterator[Deferred]:
    """Yields every :class:`Deferred` in a value, an outer one before those inside it, in the order of the file."""
    return (inner for _, inner in walk(value) if isinstance(inner, Deferred))


def resolve(value: Any, refused: Collection[int], advice: str) -> Any:
    """Returns a value with its tags carried out as the host would.

    Args:
        value: A part of the YAML.
        refused: ``id`` of each :class:`Deferred` that must not be built, such as the data sets.
        advice: What to do about one of those, for the message.

    Raises:
        TRGError: If a tag is unknown, refused or cannot be carried out.
    """
    if isinstance(value, dict):
        return {key: resolve(item, refused, advice) for key, item in value.items()}
    if isinstance(value, list):
        return [resolve(item, refused, advice) for item in value]
    if not isinstance(value, Deferred):
        return value
    if id(value) in refused:
        raise UnknownHereError(
            f'expected a value that is known without the data sets, got one read from them; {advice}'
        )
    if value.tag not in RESOLVERS:
        raise TRGError(f'expected a tag among {", ".join(RESOLVERS)}, got `{value.tag}`; {advice}')
    content = resolve(value.content, refused, advice)
    with placed(f'{tag_name(value.tag, content)} failed', f'{advice}{start_of_paths(content)}'):
        return RESOLVERS[value.tag](content)
