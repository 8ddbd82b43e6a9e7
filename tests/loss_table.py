"""The losses that the tests run through the same cases: each takes student and teacher tokens [B, N, D].

A new relation loss is a row here: its function or registered class, its naive reading in :mod:`reference`, its options.
"""

import dataclasses
import itertools
from collections.abc import Callable

import reference
import torch

from trg_torchdistill import TokenContextualLoss, TRGLoss
from trg_torchdistill.functional import contextual_loss, global_relationship_loss, local_preserving_loss

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


def graph(function):
    """A function of [M, D]: the tokens of all images are one graph."""
    return lambda student, teacher, **options: function(student.flatten(0, 1), teacher.flatten(0, 1), **options)


def module(cls):
    """A registered class: the tokens come as the feature map [B, D, N, 1] of a hooked module."""

    def call(student, teacher, **options):
        features = ({'map': {'output': tokens.transpose(1, 2).unsqueeze(3)}} for tokens in (student, teacher))
        return cls(**ENDS, **options)(*features)

    return call


def naive_trg(student, teacher, local_reduction='sum', global_reduction='mean', temperature=0.1, **options):
    eps = options.get('eps', reference.EPS_FLOAT64)
    local = {name: value for name, value in options.items() if name != 'tokens_per_image'}
    tokens = student.flatten(0, 1), teacher.flatten(0, 1)
    return reference.local_preserving_loss(
        *tokens, reduction=local_reduction, **local
    ) + reference.global_relationship_loss(*tokens, temperature, global_reduction, eps)


def local_losses():
    """Every choice of the local loss, named by what differs from the default."""
    for direction, support, unit, reduction in itertools.product(
        ('teacher_student', 'student_teacher'), ('all', 'neighbors'), (True, False), ('sum', 'mean')
    ):
        others = {'student_teacher': direction, 'neighbors': support, False: unit, 'mean': reduction}
        name = ', '.join(
            ['local', *('raw' if other is False else other for other, own in others.items() if other == own)]
        )
        options = {'kl_direction': direction, 'affinity_support': support, 'normalize_tokens': unit}
        options |= {'reduction': reduction, 'num_neighbors': 3, 'sigma': 0.5 if unit else 3.0}
        yield name, Loss(graph(local_preserving_loss), graph(reference.local_preserving_loss), options)


GLOBAL = graph(global_relationship_loss), graph(reference.global_relationship_loss)
CONTEXTUAL = contextual_loss, reference.contextual_loss
TRG = module(TRGLoss), naive_trg
TOKEN_CONTEXTUAL = module(TokenContextualLoss), reference.contextual_loss
EVERY = dict(local_losses()) | {
    'global': Loss(*GLOBAL, {}, one_width=True),
    'global, sum': Loss(*GLOBAL, {'reduction': 'sum', 'temperature': 0.5}, one_width=True),
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
    'TokenContextualLoss': Loss(*TOKEN_CONTEXTUAL, {}),
    'TokenContextualLoss, unit': Loss(*TOKEN_CONTEXTUAL, {'normalize_tokens': True}),
}
# The ways through the code: of the local loss each pair of choices is here, how rows are reduced is no way of its own.
WAYS = (
    'local',
    'local, neighbors, raw',
    'local, student_teacher, raw',
    'local, student_teacher, neighbors',
    'global',
    'contextual',
    'contextual, unit',
    'TRGLoss',
    'TokenContextualLoss',
)
REGISTERED = {'TRGLoss': TRGLoss, 'TokenContextualLoss': TokenContextualLoss}
