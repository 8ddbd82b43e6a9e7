"""``TokenContextualLoss``: its keywords, checked, and what goes into the formula of ``functional``."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from trg_torchdistill.context import ContextualTerm
from trg_torchdistill.diagnostics import contextual_difference, share_on_teacher_edges
from trg_torchdistill.io import IoDict
from trg_torchdistill.losses.maps import ImageMaps, MapFacts, map_bytes
from trg_torchdistill.losses.paired import PairedTokens
from trg_torchdistill.losses.relation import RelationLoss, Terms
from trg_torchdistill.schedules import WeightSchedule
from trg_torchdistill.tokens import normalize

MEASURED_ENTRIES = 2**24
SATURATED_ROW = 0.99


class TokenContextualLoss(RelationLoss):
    r"""The token-wise contextual loss, L_inner: teacher and student relate the tokens of an image alike.

    Zhang, Liu, He: "Knowledge Distillation via Token-level Relationship Graph", arXiv:2306.12442. All tokens of each
    image go into :class:`~trg_torchdistill.context.ContextualTerm`; the widths may differ.

    Args:
        student_module_path: Module path of the student's feature.
        student_module_io: ``input`` or ``output`` of that module.
        teacher_module_path: Module path of the teacher's feature.
        teacher_module_io: ``input`` or ``output`` of that module.
        reduction: ``mean`` over all entries, or ``batchmean``: the sum over N x N, the mean over images.
        normalize_tokens: L2-normalise the tokens, then divide by ``temperature`` instead of sqrt(D).
        temperature: Divisor with ``normalize_tokens``.
        weight: Weight of the term, before that of the YAML's term: a number, or {start, end, schedule} of a
            :class:`~trg_torchdistill.schedules.WeightSchedule`, which needs ``pre_epoch_process_with_trg``.
        compile: Run the formula through ``torch.compile``.
        student_tokens: :class:`~trg_torchdistill.io.TokenOptions` of the student's feature.
        teacher_tokens: Those of the teacher's.
        token_mask: Options of a :class:`~trg_torchdistill.losses.masks.TokenMask`: which tokens count, where some are
            padding. None: all do.

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

    summary = 'token-wise contextual term within an image'

    def __init__(
        self,
        student_module_path: str,
        student_module_io: str,
        teacher_module_path: str,
        teacher_module_io: str,
        reduction: str = ContextualTerm.reduction,
        normalize_tokens: bool = ContextualTerm.normalize_tokens,
        temperature: float = ContextualTerm.temperature,
        weight: float | Mapping[str, Any] = 1.0,
        compile: bool = False,
        student_tokens: Mapping[str, Any] | None = None,
        teacher_tokens: Mapping[str, Any] | None = None,
        token_mask: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            student_module_path,
            student_module_io,
            teacher_module_path,
            teacher_module_io,
            student_tokens,
            teacher_tokens,
            compile,
            token_mask,
        )
        self.take('weight', weight, WeightSchedule)
        self.term = ContextualTerm(normalize_tokens, temperature, reduction)
        self._warned_of_one_token = False

    def compute(self, student_io_dict: IoDict, teacher_io_dict: IoDict, targets: object) -> Terms:
        """Returns the contextual term, nothing with a weight of 0."""
        if self.now('weight') == 0:
            return {}
        tokens = self.tokens(student_io_dict, teacher_io_dict, targets)
        if tokens.student.shape[1] == 1 and not self._warned_of_one_token:
            self._warned_of_one_token = True
            warnings.warn(
                'expected `TokenContextualLoss` to get more than one token an image, got 1: the term is 0; '
                'change `student_module_path:` and `teacher_module_path:` to a layer before pooling',
                stacklevel=2,
            )
        return {
            'contextual': (self.now('weight'), self.formula(self.term)(tokens.student, tokens.teacher, tokens.mask))
        }

    @property
    def maps(self) -> ImageMaps:
        """The context maps."""
        words = ('context map', 'similarity', 'softmax over the image', 'contextual loss')
        return ImageMaps(*words, of=self.term.context, difference=self.term)

    @torch.no_grad()
    def facts(
        self, term: str, student_io_dict: IoDict, teacher_io_dict: IoDict, batch_size: int, targets: object = None
    ) -> MapFacts:
        """Returns the size of the maps, and how many of their rows are saturated."""
        tokens = self.tokens(student_io_dict, teacher_io_dict, targets)
        num_images, cells, _ = tokens.student.shape
        few = tokens.first(max(1, MEASURED_ENTRIES // cells**2))
        saturated = {side: self._saturated(each, few.counts) for side, each in few.sides.items()}
        return MapFacts(
            term,
            cells,
            map_bytes(num_images, cells),
            map_bytes(batch_size, cells),
            saturated,
            padding=tokens.padding,
            on_teacher_edges={'contextual': self._share_on_teacher_edges(few)},
        )

    def _share_on_teacher_edges(self, tokens: PairedTokens) -> float:
        """The mean over the images, within which a token has up to 8 neighbours."""
        gradients = contextual_difference(self.term, tokens.student, tokens.teacher, tokens.mask)
        images = zip(gradients, normalize(tokens.teacher.float()), tokens.counts, strict=True)
        shares = [
            share_on_teacher_edges(pairs[counts][:, counts], image[counts])
            for pairs, image, counts in images
            if counts.sum() > 1
        ]
        return sum(shares) / len(shares) if shares else math.nan

    def _saturated(self, tokens: Tensor, counts: Tensor) -> float:
        """The share of rows of the maps whose largest entry is above 0.99, of images with more than one token."""
        largest = self.term.context(tokens.float(), counts).amax(2)[counts & (counts.sum(1, keepdim=True) > 1)]
        return (largest > SATURATED_ROW).float().mean().item() if largest.numel() else 0.0
