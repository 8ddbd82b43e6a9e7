"""``TRGLoss``: its keywords, checked, and what goes into the formulas of ``functional``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch

from trg_torchdistill._checks import check_bool, check_choice, check_integer
from trg_torchdistill.diagnostics import global_gradient, local_gradient, share_on_teacher_edges, soft_targets
from trg_torchdistill.errors import TRGError
from trg_torchdistill.functional import TARGETS, TOKEN_REDUCTIONS, GlobalTerm, LocalTerm
from trg_torchdistill.gather import Share, world_size
from trg_torchdistill.io import IoDict
from trg_torchdistill.losses.graph_facts import MEASURED_TOKENS, ONE_ENTRY, GraphFacts, edge_facts, graph_bytes
from trg_torchdistill.losses.projection import Projection
from trg_torchdistill.losses.queue import TokenQueue
from trg_torchdistill.losses.relation import RelationLoss, Terms
from trg_torchdistill.schedules import TemperatureSchedule, WeightSchedule
from trg_torchdistill.tokens import take_cells


class TRGLoss(RelationLoss):
    r"""TRG: the local preserving loss and the global relationship loss on the token graph of a batch.

    Zhang, Liu, He: "Knowledge Distillation via Token-level Relationship Graph", arXiv:2306.12442. The value is
    ``local_weight`` * :class:`~trg_torchdistill.functional.LocalTerm` + ``global_weight`` *
    :class:`~trg_torchdistill.functional.GlobalTerm`, on ``tokens_per_image`` cells drawn at random from
    each image, the same for teacher and student.

    Args:
        student_module_path: Module path of the student's feature.
        student_module_io: ``input`` or ``output`` of that module.
        teacher_module_path: Module path of the teacher's feature.
        teacher_module_io: ``input`` or ``output`` of that module.
        projection_module_path: Module path of the projected student tokens, ``projectors.NAME`` of ``Student4TRG``;
            None when both widths are equal.
        projection_module_io: ``input`` or ``output`` of that module.
        num_neighbors: Neighbours k of a token, clipped to M - 1 with one warning; None for the complete graph.
        sigma: Bandwidth of the Gaussian affinity, in squared token distance.
        edges: Whose neighbours are the edges: ``own``, each graph its model's; ``teacher``; ``union``, those of both.
        row_distribution: A row is the softmax of A over all tokens, ``softmax_all``, or over its edges,
            ``softmax_edges``, or A over its sum, ``proportional``.
        edge_direction: Edges of row i: ``out``, {j : j in kNN(i)}, or ``in``, {j : i in kNN(j)}, not with ``gather``.
        tokens_per_image: Tokens n drawn from an image, None for all; one with fewer that count gives all of these.
        max_tokens: Cap on the M = B*n tokens of the graph, by drawing fewer an image (at least one); None for no cap.
            With ``gather`` each process may draw its equal part of them.
        temperature: tau of the global term: a number, or {start, end, schedule} of a
            :class:`~trg_torchdistill.schedules.TemperatureSchedule`, which needs ``pre_epoch_process_with_trg``.
        global_targets: ``self`` (InfoNCE) or ``teacher`` (soft targets).
        target_temperature: tau_t of the soft targets, as ``temperature``; None for the same.
        queue_size: The last Q teacher tokens of earlier batches are columns of the global term too. They are tokens of
            the augmented images as they were seen, drawn as those of the batch; saved and resumed with a run.
        local_weight: Weight of the local term: a number or {start, end, schedule}; 0 skips it and its cost.
        global_weight: The same of the global term.
        kl_direction: ``teacher_student`` or ``student_teacher``.
        normalize_tokens: L2-normalise the tokens of the graph.
        local_reduction: ``sum`` or ``mean`` over tokens.
        global_reduction: ``mean`` or ``sum`` over tokens.
        gather: Under distributed training, one graph over the tokens of all processes; otherwise one for each process.
        compile: Run the formulas through ``torch.compile``; a last batch of another size compiles them once more, and
            one in which an image gives fewer than n tokens runs as without it.
        student_tokens: :class:`~trg_torchdistill.io.TokenOptions` of the student's feature.
        teacher_tokens: Those of the teacher's.
        token_mask: Options of a :class:`~trg_torchdistill.losses.masks.TokenMask`: which tokens count, where some are
            padding. None: all do.

    Raises:
        TRGError: If a keyword is unknown, missing or of a wrong type; if a value is out of range; in :meth:`forward`,
            if a feature is missing or does not fit.

    YAML::

        trg:
          criterion:
            key: 'TRGLoss'
            kwargs:
              student_module_path: 'layer4'
              student_module_io: 'output'
              teacher_module_path: 'layer4'
              teacher_module_io: 'output'
              num_neighbors: 8
              temperature: 0.1
          weight: 1.0
    """

    summary = 'local and global terms on the token graph'

    def __init__(
        self,
        student_module_path: str,
        student_module_io: str,
        teacher_module_path: str,
        teacher_module_io: str,
        projection_module_path: str | None = None,
        projection_module_io: str = 'output',
        num_neighbors: int | None = LocalTerm.num_neighbors,
        sigma: float = LocalTerm.sigma,
        edges: str = LocalTerm.edges,
        row_distribution: str = LocalTerm.row_distribution,
        edge_direction: str = LocalTerm.edge_direction,
        tokens_per_image: int | None = 8,
        max_tokens: int | None = 4096,
        temperature: float | Mapping[str, Any] = 0.1,
        global_targets: str = GlobalTerm.targets,
        target_temperature: float | Mapping[str, Any] | None = None,
        queue_size: int = 0,
        local_weight: float | Mapping[str, Any] = 1.0,
        global_weight: float | Mapping[str, Any] = 1.0,
        kl_direction: str = LocalTerm.kl_direction,
        normalize_tokens: bool = LocalTerm.normalize_tokens,
        local_reduction: str = LocalTerm.reduction,
        global_reduction: str = GlobalTerm.reduction,
        gather: bool = False,
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
        self.projection = Projection(self.key, student_module_path, projection_module_path, projection_module_io)
        self.local = LocalTerm(
            num_neighbors,
            sigma,
            edges,
            row_distribution,
            edge_direction,
            kl_direction,
            normalize_tokens,
            check_choice('local_reduction', local_reduction, TOKEN_REDUCTIONS),
        )
        self.relationship = GlobalTerm(
            check_choice('global_reduction', global_reduction, TOKEN_REDUCTIONS),
            check_choice('global_targets', global_targets, TARGETS),
        )
        self.tokens_per_image = self.max_tokens = None
        if tokens_per_image is not None:
            self.tokens_per_image = check_integer('tokens_per_image', tokens_per_image, 1)
        if max_tokens is not None:
            self.max_tokens = check_integer('max_tokens', max_tokens, 1)
        self.take('local_weight', local_weight, WeightSchedule)
        self.take('global_weight', global_weight, WeightSchedule)
        self.take('temperature', temperature, TemperatureSchedule)
        self._has_target_temperature = target_temperature is not None
        if target_temperature is not None:
            self.take('target_temperature', target_temperature, TemperatureSchedule)
            if global_targets == 'self':
                raise TRGError(
                    "expected `global_targets` to be 'teacher' with a `target_temperature`, got 'self', which has none"
                )
        size = check_integer('queue_size', queue_size, 0)
        self.queue = TokenQueue(size) if size else None
        self.gather = check_bool('gather', gather)
        if gather and edge_direction == 'in':
            raise TRGError("expected `edge_direction` to be 'out' with `gather: true`, got 'in'")
        self._warned_of_clipping = False

    @property
    def current_temperature(self) -> float | None:
        """The temperature of the global term; None while a schedule has no epoch or the term is skipped."""
        return self._numbers.get('temperature') if self._numbers.get('global_weight', 1) > 0 else None

    def compute(self, student_io_dict: IoDict, teacher_io_dict: IoDict, targets: object) -> Terms:
        """Returns the local and the global term, of which one with weight 0 is not computed.

        Raises:
            TRGError: As :meth:`forward`; if the schedule was told no epoch.
        """
        tokens = self.tokens(student_io_dict, teacher_io_dict, targets)
        batch_size, num_cells, _ = tokens.student.shape
        num_drawn = self.tokens_an_image(batch_size, num_cells)
        cells = tokens.draw(num_drawn)
        is_whole = cells.numel() == batch_size * num_drawn
        own_tokens = take_cells(tokens.teacher, cells)
        share = Share.of(own_tokens) if self.gather else Share((len(own_tokens),))
        teacher_tokens = share.gather(own_tokens.detach())
        terms: Terms = {}
        local_weight, global_weight = self.now('local_weight'), self.now('global_weight')
        if local_weight > 0:
            self._warn_of_clipping(len(teacher_tokens))
            student_tokens = share.gather(take_cells(tokens.student, cells))
            local = self.formula(self.local, is_whole)(student_tokens, teacher_tokens, share.rows)
            terms['local'] = (local_weight, share.scaled(local, self.local.reduction))
        if global_weight > 0:
            projected = take_cells(self.projection.tokens(student_io_dict, tokens), cells)
            soft = self.now('target_temperature') if self._has_target_temperature else None
            queue = None if self.queue is None else self.queue.tokens
            between = self.formula(self.relationship, is_whole)(
                projected, teacher_tokens, self.now('temperature'), soft, queue, share.rows
            )
            terms['global'] = (global_weight, share.scaled(between, self.relationship.reduction))
        if self.queue is not None:
            self.queue.push(teacher_tokens)
        return terms

    @property
    def graph(self) -> LocalTerm:
        """The local term."""
        return self.local

    @torch.no_grad()
    def facts(
        self, term: str, student_io_dict: IoDict, teacher_io_dict: IoDict, batch_size: int, targets: object = None
    ) -> GraphFacts:
        """Returns the size of the graph, and what its edges weigh."""
        tokens = self.tokens(student_io_dict, teacher_io_dict, targets)
        num_images, cells, _ = tokens.student.shape
        num_drawn, num_drawn_yaml = (self.tokens_an_image(count, cells) for count in (num_images, batch_size))
        chosen = tokens.draw(num_drawn, torch.Generator().manual_seed(0))
        rows = {side: take_cells(each, chosen).float()[:MEASURED_TOKENS] for side, each in tokens.sides.items()}
        here, there = chosen.numel(), round(batch_size * tokens.counted(num_drawn_yaml))
        width = max(each.shape[2] for each in tokens.sides.values())
        queue_size = 0 if self.queue is None else self.queue.size
        shares, sharp_targets = {}, 0.0
        if self._numbers.get('local_weight', 1) > 0:
            shares['local'] = local_gradient(self.local, **rows)
        if self.current_temperature is not None:
            projected = take_cells(self.projection.tokens(student_io_dict, tokens), chosen)
            taus = self.current_temperature, self._numbers.get('target_temperature', self.current_temperature)
            shares['global'] = global_gradient(self.relationship, projected[:MEASURED_TOKENS], rows['teacher'], *taus)
            if self.relationship.targets == 'teacher' and here:
                sharp_targets = (soft_targets(rows['teacher'], taus[1]).amax(1) > ONE_ENTRY).float().mean().item()
        return GraphFacts(
            term,
            cells,
            padding=tokens.padding,
            tokens_per_image=num_drawn,
            num_tokens=here,
            num_tokens_yaml=there,
            num_neighbors=self.local.num_neighbors,
            graph_bytes=graph_bytes(here, self.local, width),
            graph_bytes_yaml=graph_bytes(there, self.local, width),
            queue_size=queue_size,
            queue_bytes=queue_size * tokens.teacher.shape[2] * 4,
            temperature=self.current_temperature,
            sharp_targets=sharp_targets,
            on_teacher_edges={
                name: share_on_teacher_edges(gradient, self.local.placed(rows['teacher']), self.local.num_neighbors)
                for name, gradient in shares.items()
            },
            **edge_facts(self.local, rows),
        )

    def tokens_an_image(self, batch_size: int, num_cells: int) -> int:
        """Returns the number of tokens drawn from each of ``batch_size`` images that have ``num_cells``."""
        wanted = num_cells if self.tokens_per_image is None else min(self.tokens_per_image, num_cells)
        if self.max_tokens is None:
            return wanted
        own_part = self.max_tokens // (world_size() if self.gather else 1)
        return max(1, min(wanted, own_part // batch_size))

    def _warn_of_clipping(self, num_tokens: int) -> None:
        k = self.local.num_neighbors
        if k is not None and k >= num_tokens > 0 and not self._warned_of_clipping:
            self._warned_of_clipping = True
            warnings.warn(
                f'expected `num_neighbors` of `TRGLoss` to be less than the {num_tokens} tokens of the graph, '
                f'got {k}: clipped to {num_tokens - 1}; change `num_neighbors:`, '
                f'`tokens_per_image:` or the batch size',
                stacklevel=2,
            )
