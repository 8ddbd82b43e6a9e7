"""Reads a torchdistill YAML, once, and knows the line on which each of its values stands."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torchdistill.common.main_util import import_dependencies

from trg_torchdistill.cli.recipe.text import build, problem, read_text
from trg_torchdistill.errors import TRGError, explained


class UnknownHereError(TRGError):
    """Something that cannot be known without the data sets or a download; the YAML may well be right."""


@dataclass(frozen=True)
class Config:
    """One YAML file.

    Attributes:
        path: The file.
        text: What stands in it.
        data: What the host's loader makes of it. The host changes it while it builds a box, so it serves one run.
    """

    path: Path
    text: str
    data: dict[str, Any]

    @property
    def student_path(self) -> tuple[str, str]:
        """Path of the student's block: ``models.student_model``, or ``models.model`` as in a YAML without teacher."""
        return ('models', 'student_model' if self.get('models', 'student_model') is not None else 'model')

    @property
    def teacher_path(self) -> tuple[str, str] | None:
        """Path of the teacher's block, None when there is no teacher."""
        return ('models', 'teacher_model') if self.get('models', 'teacher_model') is not None else None

    @property
    def model_paths(self) -> tuple[tuple[str, str], ...]:
        """Paths of the models' blocks, the teacher's first if there is one."""
        return tuple(path for path in (self.teacher_path, self.student_path) if path is not None)

    @property
    def side_names(self) -> tuple[str, ...]:
        """Names of the models' blocks in a stage: ``teacher`` and ``student``, or ``model`` without a teacher."""
        return ('model',) if self.teacher_path is None else ('teacher', 'student')

    def stage_paths(self) -> list[tuple[str, ...]]:
        """Returns the path of each training stage, in their order; a YAML without stages has one, ``train``."""
        if self.get('train', 'stage1') is None:
            return [('train',)]
        names = [key for key in self.mapping('train') if str(key).startswith('stage')]
        return [('train', name) for name in sorted(names, key=lambda name: (len(name), name))]

    def get(self, *path: str) -> Any:
        """Returns the value at a path, None when there is none."""
        return value_at(self.data, path)

    def mapping(self, *path: str) -> dict[str, Any]:
        """Returns the mapping at a path.

        Raises:
            TRGError: If it is missing or something else stands there.
        """
        value = self.get(*path)
        if isinstance(value, dict):
            return value
        if path[-1] == 'kwargs' and value is None:
            raise TRGError(
                f'expected {self.where(*path)} to be a mapping, got nothing; torchdistill needs it even where it is '
                f'empty: write `kwargs: {{}}` under {self.where(*path[:-1])}'
            )
        raise TRGError(f'expected {self.where(*path)} to be a mapping, got {shown(value)}; add or correct it')

    def where(self, *path: str | int) -> str:
        """Returns a path as text, with the line on which it stands if it is in the file."""
        line = line_of(self.text, path)
        return f'`{".".join(map(str, path))}`' + ('' if line is None else f' (line {line})')


def value_at(value: Any, path: tuple[str, ...]) -> Any:
    """Returns what stands at a path in a mapping of mappings, None when there is nothing."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def shown(value: object) -> str:
    """Returns a value for a message."""
    return 'nothing' if value is None else repr(value)


def load_config(path: str) -> Config:
    """Reads a YAML as the host does, which also builds the data sets and other objects named in it.

    Raises:
        TRGError: If there is no such file, it is no YAML, or an object in it cannot be built.
    """
    return read_config(path, build)


def read_config(path: str, parse: Callable[[str], Any]) -> Config:
    """Reads a YAML file.

    Args:
        path: The file.
        parse: What makes values of its text.

    Raises:
        TRGError: If there is no such file, it is no YAML mapping, or a value or an object in it cannot be built.
    """
    file, text = read_text(path)
    with explained(f'expected {path} to be valid YAML, got a value that cannot be read', 'correct it'):
        try:
            data = parse(text)
        except yaml.YAMLError as error:
            raise TRGError(f'expected {path} to be valid YAML, got{problem(error, text)}') from error
    if not isinstance(data, dict):
        raise TRGError(f'expected {path} to hold a mapping with `models:` and `train:`, got {type(data).__name__}')
    return Config(file, text, with_home(data))


def with_home(data: dict[str, Any]) -> dict[str, Any]:
    """Writes out ``~`` in the weights' files of a YAML's models, which the host takes as they are, and returns it."""
    train = data.get('train')
    stages = [train, *train.values()] if isinstance(train, dict) else []
    for part in (data.get('models'), *stages):
        for block in part.values() if isinstance(part, dict) else ():
            for key in ('src_ckpt', 'dst_ckpt'):
                if isinstance(block, dict) and isinstance(block.get(key), str):
                    block[key] = os.path.expanduser(block[key])
    return data


def import_packages(config: Config) -> None:
    """Imports the packages under ``dependencies:``, which register their keys.

    Raises:
        TRGError: If one is not installed, or fails.
    """
    with explained(
        f'expected {config.where("dependencies")} to name installed packages, got one that cannot be imported',
        'install the package or correct its name',
    ):
        import_dependencies(config.get('dependencies'))


def line_of(text: str, path: tuple[str | int, ...]) -> int | None:
    """Returns the line, from 1, of the scalar, or of the key of a block, at the end of a path in a YAML text.

    A number in the path is the position in a list. The line is None if the path is not there.
    """
    node = yaml.compose(text, Loader=yaml.FullLoader)
    line = None
    for key in path:
        if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            continue
        pair = next((pair for pair in _pairs(node) if pair[0].value == str(key)), None)
        if pair is None:
            return None
        line, node = pair[0].start_mark.line + 1, pair[1]
    return node.start_mark.line + 1 if line is not None and isinstance(node, yaml.ScalarNode) else line


def _pairs(node: yaml.Node | None) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    """Yields a mapping's keys and values, its own before those that ``<<`` merges into it."""
    if not isinstance(node, yaml.MappingNode):
        return
    merged = [value for key, value in node.value if key.tag == 'tag:yaml.org,2002:merge']
    yield from (pair for pair in node.value if pair[1] not in merged)
    for value in merged:
        for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
            yield from _pairs(source)
