"""``TokenContextualLoss``: its keywords, checked, and what goes into the formula of ``functional``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from trg_torchdistill._checks import advice, explain_keywords
from trg_torchdistill.functional import ContextualTerm
from trg_torchdistill.losses.relation import IoDict, RelationLoss, Terms
from trg_torchdistill.tokens import flatten_grid, pool_to_common_grid


class TokenContextualLoss(RelationLoss):
    r"""The token-wise contextual loss, L_inner: teacher and student relate the tokens of an image alike.

    Zhang, Liu, He: "Knowledge Distillation via Token-level Relationship Graph", arXiv:2306.12442. All tokens of each
    image go into :class:`~trg_torchdistill.functional.ContextualTerm`; the widths may differ.

    Args:
        student_module_path: Module path of the student's feature.
        student_module_io: ``input`` or ``output`` of that module.
        teacher_module_path: Module path of the teacher's feature.
        teacher_module_io: ``input`` or ``output`` of that module.
        reduction: ``mean`` over all entries, or ``batchmean``: the sum over N x N, the mean over images.
        normalize_tokens: L2-normalise the tokens, then divide by ``temperature`` instead of sqrt(D).
        temperature: Divisor with ``normalize_tokens``.
        student_tokens: Options of the student's :class:`~trg_torchdistill.tokens.Tokenizer`.
        teacher_tokens: Options of the teacher's tokenizer.

    Raises:
        TRGError: If a keyword is unknown, missing or of a wrong type; if a value is out of range; in :meth:`forward`,
            if a feature is missing or does not fit.

    YAML::

        contextual:
          criterion:
            key: 'TokenContextualLoss'
            kwargs:
              student_module_path: 'layer4'
              student_module_io: 'output'
              teacher_module_path: 'layer4'
              teacher_module_io: 'output'
          weight: 1.0
    """

    @explain_keywords('TokenContextualLoss')
    def __init__(
        self,
        student_module_path: str,
        student_module_io: str,
        teacher_module_path: str,
        teacher_module_io: str,
        reduction: str = ContextualTerm.reduction,
        normalize_tokens: bool = ContextualTerm.normalize_tokens,
        temperature: float = ContextualTerm.temperature,
        student_tokens: Mapping[str, Any] | None = None,
        teacher_tokens: Mapping[str, Any] | None = None,
    ) -> None:
        with advice('change it under the `kwargs:` of `TokenContextualLoss`'):
            super().__init__(
                student_module_path,
                student_module_io,
                teacher_module_path,
                teacher_module_io,
                student_tokens,
                teacher_tokens,
            )
            self.term = ContextualTerm(normalize_tokens, temperature, reduction)
        self._warned_of_one_token = False

    def compute(self, student_io_dict: IoDict, teacher_io_dict: IoDict) -> Terms:
        """Returns the contextual term."""
        grids = self.token_grids(student_io_dict, teacher_io_dict)
        student, teacher = (flatten_grid(grid) for grid in pool_to_common_grid(*grids))
        if student.shape[1] == 1 and not self._warned_of_one_token:
            self._warned_of_one_token = True
            warnings.warn(
                'expected `TokenContextualLoss` to get more than one token an image, got 1: the term is 0; '
                'change `student_module_path:` and `teacher_module_path:` to a layer before pooling',
                stacklevel=2,
            )
        return {'contextual': (1.0, self.term(student, teacher))}
