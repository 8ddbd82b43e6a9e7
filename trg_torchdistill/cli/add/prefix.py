"""Renames the student's modules in a stage: under ``Student4TRG`` each path begins with ``student_model.``."""

from __future__ import annotations

from typing import Any

from trg_torchdistill.cli.add.targets import Stage
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.errors import TRGError

PREFIX = 'student_model.'
PATH_WORDS = ('path', 'module', 'layer')


def add_prefix(config: Config, stage: Stage, block: dict[str, Any]) -> list[str]:
    """Adds the prefix to each path of the student: hooks, frozen modules, optimizer and the terms of the loss.

    Args:
        config: The YAML.
        stage: Path of the stage.
        block: Values of the stage, which share nothing; they are changed.

    Returns:
        Paths in the YAML of the values that were changed.

    Raises:
        TRGError: If a path in a term may be the teacher's or the student's.
    """
    renamer = _Renamer(config, stage, block)
    student, optimizer = block['student'], block['optimizer']
    hooks = student.get('forward_hook') or {}
    for end in ('input', 'output'):
        renamer.rename_list(hooks.get(end), ('student', 'forward_hook', end))
    renamer.rename_list(student.get('frozen_modules'), ('student', 'frozen_modules'))
    for index, entry in enumerate(optimizer.get('module_wise_configs') or ()):
        if not entry.get('is_teacher'):
            place = ('optimizer', 'module_wise_configs', str(index), 'module')
            entry['module'] = renamer.renamed(entry['module'], place)
    for name, term in block['criterion']['kwargs']['sub_terms'].items():
        for part in ('criterion', 'criterion_wrapper'):
            kwargs = (term.get(part) or {}).get('kwargs') if isinstance(term, dict) else None
            if isinstance(kwargs, dict):
                renamer.rename_term(kwargs, ('criterion', 'kwargs', 'sub_terms', name, part, 'kwargs'), None)
    return renamer.changed


class _Renamer:
    def __init__(self, config: Config, stage: Stage, block: dict[str, Any]) -> None:
        self.config, self.stage, self.block = config, stage, block
        self.hooked = {side: _hooked(block[side]) for side in ('student', 'teacher')}
        self.changed: list[str] = []

    def rename_term(self, value: Any, place: tuple[str, ...], side: str | None) -> None:
        """Renames the student's paths among the arguments of a loss; what is the teacher's stays."""
        if isinstance(value, dict):
            if 'is_from_teacher' in value:
                side = 'teacher' if value['is_from_teacher'] else 'student'
            elif value.get('side') in ('student', 'teacher'):
                side = value['side']
            for key, item in value.items():
                value[key] = self._rename_argument(item, (*place, str(key)), _side_of(str(key), side))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                value[index] = self._rename_argument(item, (*place, str(index)), side)

    def _rename_argument(self, item: Any, place: tuple[str, ...], side: str | None) -> Any:
        if not isinstance(item, str):
            self.rename_term(item, place, side)
            return item
        names_a_module = any(word in key.lower() for key in place[-2:] for word in PATH_WORDS)
        if item not in self.hooked['student'] or side == 'teacher' or not (side or names_a_module):
            return item
        if side is None and item in self.hooked['teacher']:
            where = self.config.where(*self.stage, *place)
            raise TRGError(
                f"{where} is {item!r}, which both models hook: it is not clear whether it is the student's, which must "
                f"become '{PREFIX}{item}' under `Student4TRG`; choose layers of equal width with `--student-layer` and "
                '`--teacher-layer`, or add TRG by hand'
            )
        return self.renamed(item, place)

    def rename_list(self, paths: Any, place: tuple[str, ...]) -> None:
        """Renames the modules in a list; ``instance(...)`` among ``frozen_modules`` names a class, not a module."""
        if isinstance(paths, list):
            for index, path in enumerate(paths):
                if not path.startswith('instance('):
                    paths[index] = self.renamed(path, (*place, str(index)))

    def renamed(self, path: str, place: tuple[str, ...]) -> str:
        """Returns a path with the prefix, and notes the place; the model itself, ``.``, has none."""
        if path == '.':
            return path
        self.changed.append('.'.join((*self.stage, *place)))
        return f'{PREFIX}{path}'


def _side_of(key: str, side: str | None) -> str | None:
    """Returns the model that a key speaks of: ``student_module_path`` of the student; else the one of its block."""
    named = [name for name in ('student', 'teacher') if name in key.lower()]
    return named[0] if len(named) == 1 else side


def _hooked(block: dict[str, Any]) -> set[str]:
    hooks = block.get('forward_hook') or {}
    return {path for end in ('input', 'output') for path in hooks.get(end) or []} - {'.'}
