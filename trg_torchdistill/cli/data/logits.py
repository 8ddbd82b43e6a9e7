"""Whether the terms of a loss can compare the logits of a teacher and a student with unequal numbers of classes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from trg_torchdistill.cli.data.items import class_place
from trg_torchdistill.cli.recipe.config import Config
from trg_torchdistill.cli.runtime.random_state import preserved_random_state
from trg_torchdistill.errors import TRGError
from trg_torchdistill.host import Box


def check_compared_logits(config: Config, box: Box, num_classes: Mapping[str, int | None]) -> None:
    """Tries copies of the terms on logits alone, where teacher and student do not have equally many.

    Args:
        config: The YAML.
        box: Distillation or training box.
        num_classes: Number of logits of each side.

    Raises:
        TRGError: If a term takes logits of equal width, but not these.
    """
    teacher, student = num_classes.get('teacher'), num_classes.get('student')
    if teacher is None or student is None or teacher == student:
        return
    for name, (term, _) in box.terms.items():
        if _takes(term, student, student, box.device) and not _takes(term, teacher, student, box.device):
            raise TRGError(
                f'expected teacher and student to have equally many classes for the term `{name}` '
                f'(`{type(term).__name__}`), which compares their logits, got {teacher} and {student}; set '
                f'{class_place(config, "teacher")} and {class_place(config, "student")} alike, or '
                'remove the term'
            )


def _takes(term: Any, teacher: int, student: int, device: torch.device) -> bool:
    """Whether a term takes two images with that many logits."""
    logits = [{'.': {'output': torch.zeros(2, width, device=device)}} for width in (student, teacher)]
    try:
        with preserved_random_state(), torch.no_grad():
            copy.deepcopy(term)(*logits, torch.zeros(2, dtype=torch.long, device=device))
    except Exception:
        return False
    return True
