"""The losses that the tests run through the same cases: each takes student and teacher tokens [B, N, D], and a mask.

A new relation loss is a row here: its function or registered class, its naive reading in :mod:`reference`, which takes
`eps` and `mask` too, its options.
"""

import dataclasses
import inspect
import itertools
from collections.abc import Callable

import reference
import torch

from trg_torchdistill import TokenContextualLoss, TRGLoss
from trg_torchdistill.functional import (
    EDGE_DIRECTIONS,
    EDGES,
    KL_DIRECTIONS,
    ROW_DISTRIBUTIONS,
    contextual_loss,
    global_relationship_loss,
    local_preserving_loss,
)
from trg_torchdistill.tokens import draw_cells, take_cells

ENDS = {
    'student_module_path': 'map',
    'student_module_io': 'output',
    'teacher_module_path': 'map',
    'teacher_module_io': 'output',
}


@dataclasses.dataclass(frozen=True)
class Loss:
    """A loss with its options and its naive reading; `one_width` where student and teacher must be equally wide."""

    ours: Callable
    naive: Callable
    options: dict
    one_width: bool = False

    def __call__(self, student, teacher, **options):
        return self.ours(student, teacher, **self.options | options)

    def expected(self, student, teacher, **options):
        return self.naive(student, teacher, **self.options | options)

    def pair(self, shape=(2, 5, 6), dtype=torch.float32, scale=0.5):
        """Random tokens of the student, with a gradient, and of the teacher."""
        width = shape[2] if self.one_width else shape[2] + 2
        student, teacher = scale * torch.randn(shape), scale * torch.randn(*shape[:2], width)
        return student.to(dtype).requires_grad_(), teacher.to(dtype)


def taken(tokens, mask=None):
    """The tokens [M, D] of all images, of those that count, as the losses take them."""
    return take_cells(tokens, draw_cells(*tokens.shape[:2], tokens.shape[1], mask=mask))


def graph(function, take=taken):
    """A function of [M, D]: the tokens of all images are one graph."""
    return lambda student, teacher, mask=None, **options: function(take(student, mask), take(teacher, mask), **options)


def naive_graph(function):
    return graph(function, reference.graph_tokens_of)


def module(cls):
    """A registered class: the tokens come as the feature map [B, D, N, 1] of a hooked module."""

    def call(student, teacher, mask=None, **options):
        features = [{'map': {'output': tokens.transpose(1, 2).unsqueeze(3)}} for tokens in (student, teacher)]
        if mask is not None:
            features[1]['mask'] = {'output': mask.long()}
            options['token_mask'] = {'path': 'mask', 'side': 'teacher'}
        return cls(**ENDS, **options)(*features)

    return call


def naive_trg(student, teacher, mask=None, **options):
    """The registered loss: its local and its global term, each with its own of the options."""
    eps = options.get('eps', reference.EPS_FLOAT64)
    tokens = [reference.graph_tokens_of(tokens, mask) for tokens in (student, teacher)]
    known = inspect.signature(reference.local_preserving_loss).parameters
    local = {name: value for name, value in options.items() if name in known}
    of_global = {'temperature': 0.1, 'target_temperature': None}
    of_global |= {name: value for name, value in options.items() if name in of_global}
    return reference.local_preserving_loss(
        *tokens, reduction=options.get('local_reduction', 'sum'), **local
    ) + reference.global_relationship_loss(
        *tokens,
        **of_global,
        targets=options.get('global_targets', 'self'),
        reduction=options.get('global_reduction', 'mean'),
        eps=eps,
    )


def local_losses():
    """Every choice of the local loss that has a meaning, named by what differs from the paper's reading."""
    own = {'edges': 'own', 'row_distribution': 'softmax_all', 'edge_direction': 'out', 'num_neighbors': 3}
    for edges, distribution, direction, k in itertools.product(EDGES, ROW_DISTRIBUTIONS, EDGE_DIRECTIONS, (3, None)):
        if (edges, distribution, k) == ('own', 'proportional', 3):
            continue
        if k is None and (edges, direction) != ('own', 'out'):
            continue  # all are the complete graph, which a test of its own shows
        options = {'edges': edges, 'row_distribution': distribution, 'edge_direction': direction, 'num_neighbors': k}
        names = {'num_neighbors': 'complete'} | {name: value for name, value in options.items() if value is not None}
        name = ', '.join(['local', *(names[key] for key, value in options.items() if value != own[key])])
        for unit, kl_direction in itertools.product((True, False), KL_DIRECTIONS):
            others = [*([] if unit else ['raw']), *([kl_direction] if kl_direction != 'teacher_student' else [])]
            numbers = {'normalize_tokens': unit, 'kl_direction': kl_direction, 'sigma': 0.5 if unit else 3.0}
            loss = Loss(graph(local_preserving_loss), naive_graph(reference.local_preserving_loss), options | numbers)
            yield ', '.join([name, *others]), loss


def with_queue(of_graph):
    """A loss of the global term whose queue is made of the first teacher tokens, in the opposite direction."""
    return lambda student, teacher, mask=None, **options: of_graph(
        student, teacher, mask, queue=-teacher.detach()[:1, 0], **options
    )


GLOBAL = graph(global_relationship_loss), naive_graph(reference.global_relationship_loss)
QUEUED = tuple(with_queue(each) for each in GLOBAL)
SOFT = {'targets': 'teacher'}
CONTEXTUAL = contextual_loss, reference.contextual_loss
TRG = module(TRGLoss), naive_trg
TOKEN_CONTEXTUAL = module(TokenContextualLoss), reference.contextual_loss
EVERY = dict(local_losses()) | {
    'global': Loss(*GLOBAL, {}, one_width=True),
    'global, sum': Loss(*GLOBAL, {'reduction': 'sum', 'temperature': 0.5}, one_width=True),
    'global, queue': Loss(*QUEUED, {}, one_width=True),
    'global, teacher': Loss(*GLOBAL, SOFT, one_width=True),
    'global, teacher, sum': Loss(*GLOBAL, SOFT | {'reduction': 'sum', 'target_temperature': 0.3}, one_width=True),
    'global, teacher, queue': Loss(*QUEUED, SOFT | {'target_temperature': 0.05}, one_width=True),
    'local, mean': Loss(
        graph(local_preserving_loss), naive_graph(reference.local_preserving_loss), {'reduction': 'mean'}
    ),
    'contextual': Loss(*CONTEXTUAL, {}),
    'contextual, batchmean': Loss(*CONTEXTUAL, {'reduction': 'batchmean'}),
    'contextual, unit': Loss(*CONTEXTUAL, {'normalize_tokens': True}),
    'contextual, unit, batchmean': Loss(
        *CONTEXTUAL, {'normalize_tokens': True, 'reduction': 'batchmean', 'temperature': 0.5}
    ),
    'TRGLoss': Loss(*TRG, {'tokens_per_image': None, 'num_neighbors': 3}, one_width=True),
    'TRGLoss, raw, sum': Loss(
        *TRG,
        {'tokens_per_image': None, 'num_neighbors': 3, 'normalize_tokens': False, 'global_reduction': 'sum'},
        one_width=True,
    ),
    'TRGLoss, lasting': Loss(
        *TRG,
        {
            'tokens_per_image': None,
            'num_neighbors': 3,
            'edges': 'teacher',
            'row_distribution': 'proportional',
            'global_targets': 'teacher',
            'target_temperature': 0.2,
        },
        one_width=True,
    ),
    'TokenContextualLoss': Loss(*TOKEN_CONTEXTUAL, {}),
    'TokenContextualLoss, unit': Loss(*TOKEN_CONTEXTUAL, {'normalize_tokens': True}),
}
# The ways through the code of each formula: how rows are reduced is no way of its own.
WAYS = (
    'local',
    'local, softmax_edges, raw',
    'local, raw, student_teacher',
    'local, softmax_edges, student_teacher',
    'local, teacher',
    'local, union, proportional',
    'local, softmax_edges, in',
    'local, teacher, proportional, in, raw',
    'local, complete',
    'local, complete, raw',
    'local, proportional, complete, raw, student_teacher',
    'global',
    'global, teacher, queue',
    'contextual',
    'contextual, unit',
    'TRGLoss',
    'TRGLoss, lasting',
    'TokenContextualLoss',
)
REGISTERED = {'TRGLoss': TRGLoss, 'TokenContextualLoss': TokenContextualLoss}
