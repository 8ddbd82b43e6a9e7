"""Reads a torchdistill YAML without building what it names: each ``!import_call`` stays a note of what to call."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torchdistill.common import main_util, yaml_util

from trg_torchdistill.cli.config import OBJECT_ERRORS, Config, UnknownHereError
from trg_torchdistill.errors import TRGError


@dataclass(frozen=True)
class Deferred:
    """What stands behind a custom tag of the YAML, not built.

    Attributes:
        tag: The tag, ``!import_call`` for example.
        content: Its mapping, list or text.
    """

    tag: str
    content: Any


class DeferredLoader(yaml.FullLoader):
    """The host's YAML loader, except that tags which import or call something give a :class:`Deferred`."""


def _defer(loader: yaml.FullLoader, suffix: str, node: yaml.Node) -> Deferred:
    if isinstance(node, yaml.MappingNode):
        return Deferred(f'!{suffix}', loader.construct_mapping(node, deep=True))
    if isinstance(node, yaml.SequenceNode):
        return Deferred(f'!{suffix}', loader.construct_sequence(node, deep=True))
    return Deferred(f'!{suffix}', loader.construct_scalar(node))  # type: ignore[arg-type]


DeferredLoader.add_multi_constructor('!', _defer)
DeferredLoader.add_constructor('!join', yaml_util.yaml_join)
DeferredLoader.add_constructor('!pathjoin', yaml_util.yaml_pathjoin)
DeferredLoader.add_constructor('!expanduser', yaml_util.yaml_expanduser)
DeferredLoader.add_constructor('!abspath', yaml_util.yaml_abspath)

RESOLVERS = {
    '!import_get': lambda content: main_util.import_get(**content),
    '!import_call': lambda content: main_util.import_call(**content),
    '!import_call_method': lambda content: main_util.import_call_method(**content),
    '!getattr': lambda content: getattr(*content),
    '!access_by_index_or_key': lambda content: content['data'][content['index_or_key']],
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
    file = Path(path).expanduser()
    if not file.is_file():
        raise TRGError(f'expected CONFIG to be a YAML file, got {path}, which does not exist or is no file')
    with file.open(encoding='utf-8', newline='') as stream:
        text = stream.read()
    try:
        data = parse_deferred(text)
    except yaml.YAMLError as error:
        mark = getattr(error, 'problem_mark', None)
        where = '' if mark is None else f' on line {mark.line + 1}'
        problem = getattr(error, 'problem', None) or str(error)
        raise TRGError(f'expected {path} to be valid YAML, got{where}: {problem}') from error
    if not isinstance(data, dict):
        raise TRGError(f'expected {path} to hold a mapping with `models:` and `train:`, got {type(data).__name__}')
    return Config(file, text, data)


def deferred_in(value: Any) -> Iterator[Deferred]:
    """Yields every :class:`Deferred` in a value, an outer one before those inside it, in the order of the file."""
    if isinstance(value, Deferred):
        yield value
        value = value.content
    if isinstance(value, dict):
        for item in value.values():
            yield from deferred_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from deferred_in(item)


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
    try:
        return RESOLVERS[value.tag](content)
    except OBJECT_ERRORS as error:
        raise TRGError(f'`{value.tag}` {content} failed, {type(error).__name__}: {error}; {advice}') from error
