"""What is added to a YAML, and what it becomes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from trg_torchdistill.cli.add.prefix import PREFIX
from trg_torchdistill.cli.add.targets import Stage
from trg_torchdistill.cli.probe.probe import PREFIXES, Record
from trg_torchdistill.cli.tasks.task import Mask
from trg_torchdistill.losses.recipes import RECIPES, Recipe


@dataclass(frozen=True)
class Choice:
    """What is added, and where.

    Attributes:
        stage: Path of the training stage.
        teacher: Layer of the teacher.
        student: Layer of the student.
        weight: Weight of the ``trg`` term.
        logits_only: Sides, ``teacher`` or ``student``, whose model returns something else than a tensor.
        recipe: What the terms say, and whether there is a ``contextual`` one.
        mask: How the losses learn which tokens take part.
        logits_at: Module paths of the student whose output is the logits.
        packages: What the YAML needs under ``dependencies:``.
        trains_teacher: Whether the stage trains a part of what is around the teacher.
        is_wrapped: Whether the student has a wrapper already, under whose paths its layer is named.
    """

    stage: Stage
    teacher: Record
    student: Record
    weight: float = 1.0
    logits_only: Sequence[str] = ()
    recipe: Recipe = RECIPES['default']
    mask: Mask = field(default_factory=Mask)
    logits_at: Collection[str] = ('.',)
    packages: Sequence[str] = ('trg_torchdistill',)
    trains_teacher: bool = False
    is_wrapped: bool = False

    @property
    def needs_projection(self) -> bool:
        """Whether the widths of the tokens differ, so that the student's are projected."""
        return self.teacher.width != self.student.width

    @property
    def needs_wrapper(self) -> bool:
        """Whether the student is put into ``Student4TRG``."""
        return self.needs_projection or bool(self.mask.wrapper)

    @property
    def student_path(self) -> str:
        """Path of the student's layer once TRG is added."""
        return f'{PREFIX if self.needs_wrapper and not self.is_wrapped else ""}{self.student.path}'

    @property
    def projector_name(self) -> str:
        """A name for the projection of the student's layer: its path in the student, as an identifier."""
        names = [self.student.path.removeprefix(prefix) for prefix in PREFIXES] if self.is_wrapped else []
        path = min((self.student.path, *names), key=len)
        name = ''.join(letter if letter.isalnum() else '_' for letter in path)
        return name if name.isidentifier() else f'layer_{name}'


@dataclass
class Plan:
    """What the YAML shall hold.

    Attributes:
        tree: Its values.
        changed: Paths of the values that were there and are replaced; everything else is added.
        nested: Path of the block that moves under ``inner:`` of a ``Student4TRG`` in its place; empty for none.
        notes: What the user must know, a sentence each.
    """

    tree: dict[str, Any]
    changed: list[str] = field(default_factory=list)
    nested: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
