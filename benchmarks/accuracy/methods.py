"""The methods of the accuracy grid: a student alone, KD, and KD with one more relation loss, and their weights to tune.

All methods of a data set share the recipe and the ``KDLoss``. Each gets the same number of candidates, which bracket
the weight of torchdistill's sample configuration or, for our terms, of a first trial, and one more beyond the first or
the last of them if that did best; ``grid.py tune`` chooses.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _methods import Config, make_methods, paths, projected, side, term
from _pairs import Pair
from ablations import Variant

Weights = tuple[float, ...]
TERMS = ('local', 'global', 'contextual', 'manifold')
DYNAMIC = {'start': 0.5, 'end': 0.1, 'schedule': 'cosine'}
BASES: dict[str, Config] = {'KDLoss': {}, 'LogitStdKDLoss': {'beta': 9.0}}


@dataclass(frozen=True)
class Method:
    """A method of the grid.

    Attributes:
        name: As the tables say it.
        candidates: Weights to choose from; of ``kd`` they are (alpha, temperature).
        beyond: Weights before the first candidate and after the last one.
        peer: Name in ``_methods.py`` for a method of torchdistill, else None.
        terms: Which of ``TERMS`` take part, in their order, which is that of the weights; empty for torchdistill's.
    """

    name: str
    candidates: tuple[Weights, ...]
    beyond: tuple[Weights, ...] = ()
    peer: str | None = None
    terms: tuple[str, ...] = ()

    def tuned(self, notes: list[dict[str, Any]]) -> dict[Weights, float]:
        """Accuracy on val/ of the weights that were tried, from the notes of one recipe and setting."""
        own = [note for note in notes if (note['stage'], note['method']) == ('tune', self.name)]
        return {tuple(note['weights']): note['val_top1'] for note in own}

    def untried(self, accuracies: dict[Weights, float]) -> list[Weights]:
        """What is still to be tried, given the accuracy of what has been; nothing where there is no choice."""
        if len(self.candidates) == 1:
            return []
        missing = [weights for weights in self.candidates if weights not in accuracies]
        if missing or not self.beyond:
            return missing
        best = max(self.candidates, key=lambda weights: accuracies[weights])
        ends = {self.candidates[0]: self.beyond[0], self.candidates[-1]: self.beyond[1]}
        return [weights for weights in [ends.get(best)] if weights is not None and weights not in accuracies]

    def best(self, accuracies: dict[Weights, float]) -> Weights:
        """The weights of the highest accuracy; the first of equal ones, or of all if none was tried."""
        tried = [weights for weights in (*self.candidates, *self.beyond) if weights in accuracies]
        tried += [weights for weights in accuracies if weights not in tried]
        return max(tried, key=lambda weights: accuracies[weights], default=self.candidates[0])


def _ours(name: str, candidates: tuple[Weights, ...], beyond: tuple[Weights, ...], *terms: str) -> Method:
    return Method(name, candidates, beyond, terms=terms)


def _peer(key: str, candidates: Weights, beyond: Weights) -> Method:
    each = [tuple((weight,) for weight in weights) for weights in (candidates, beyond)]
    return Method(f'kd+{key.split()[0].lower()}', *each, peer=key)


METHODS = {
    method.name: method
    for method in (
        Method('student', ((),)),
        Method('kd', ((0.1, 4.0), (0.5, 4.0), (0.1, 2.0))),
        _ours('kd+local', ((0.3,), (1.0,), (3.0,)), ((0.1,), (10.0,)), 'local'),
        _ours('kd+global', ((0.1,), (0.3,), (1.0,)), ((0.03,), (3.0,)), 'global'),
        _ours('kd+trg', ((1.0, 0.1), (1.0, 0.3), (1.0, 1.0)), ((1.0, 0.03), (1.0, 3.0)), 'local', 'global'),
        _ours('kd+contextual', ((30.0,), (100.0,), (300.0,)), ((10.0,), (1000.0,)), 'contextual'),
        _ours(
            'kd+trg+contextual',
            ((1.0, 0.1, 30.0), (1.0, 0.3, 100.0), (0.3, 0.1, 100.0)),
            ((1.0, 0.1, 10.0), (0.3, 0.1, 300.0)),
            'local',
            'global',
            'contextual',
        ),
        _peer('AT', (100.0, 300.0, 1000.0), (30.0, 3000.0)),
        _peer('SPKD', (30.0, 300.0, 3000.0), (3.0, 30000.0)),
        _peer('RKD (pooled)', (0.3, 1.0, 5.0), (0.1, 20.0)),
        _peer('PKT', (3000.0, 10000.0, 30000.0), (1000.0, 100000.0)),
        _peer('SRD', (0.3, 1.0, 3.0), (0.1, 10.0)),
        _peer('DIST', (0.5, 1.0, 2.0), (0.25, 4.0)),
    )
}

# For schedules long enough that smaller weights of our terms may be the better ones: other candidates, as many.
LIGHTER = {
    method.name: method
    for method in (
        _ours('kd+local', ((0.1,), (0.3,), (1.0,)), ((0.03,), (3.0,)), 'local'),
        _ours('kd+global', ((0.03,), (0.1,), (0.3,)), ((0.01,), (1.0,)), 'global'),
        _ours('kd+trg', ((0.3, 0.1), (0.3, 0.3), (1.0, 0.3)), ((0.1, 0.1), (1.0, 1.0)), 'local', 'global'),
    )
}
# Where time is short: no fourth candidate, and the `KDLoss` that the recipe `cpu` chose on `balanced` and `longtailed`.
QUICK = {
    name: replace(method, beyond=(), candidates=method.candidates[:1] if name == 'kd' else method.candidates)
    for name, method in {**METHODS, **LIGHTER}.items()
}


def method_named(name: str) -> Method:
    """One of :data:`METHODS`, or else ``KDLoss`` with some of :data:`TERMS`, such as ``kd+local+contextual``."""
    return METHODS.get(name) or Method(name, ((),), terms=tuple(name.split('+')[1:]))


def train_sides(method: Method, pair: Pair, kd: Weights, weights: Weights, variant: Variant) -> Config:
    """The `teacher:`, `student:` and `criterion:` blocks of a method.

    Args:
        method: What :func:`method_named` returns, not ``student``.
        pair: Teacher and student.
        kd: (alpha, temperature) of the loss of the logits.
        weights: Weights of the method's terms.
        variant: What is changed, for an ablation.
    """
    alpha, temperature = weights if method.name == 'kd' else kd
    options = {'temperature': temperature, 'alpha': alpha, 'reduction': 'batchmean', **BASES[variant.base]}
    kd_term = term(variant.base, **paths('.', '.'), **options)
    teacher, student, terms = side(), side(), {}
    if method.peer is not None:
        block = make_methods(pair, image_size=32, crd_rows=1)[method.peer]
        teacher, student = block['teacher'], block['student']
        terms = {name: each for name, each in block['criterion']['kwargs']['sub_terms'].items() if name != 'kd'}
        for each in terms.values():
            each['weight'] = weights[0]
    elif method.terms:
        teacher, student, terms = our_sides(pair, dict(zip(method.terms, weights, strict=True)), variant)
    sub_terms = {'kd': kd_term, **terms}
    return {
        'teacher': {**teacher, 'requires_grad': False},
        'student': student,
        'criterion': {'key': 'WeightedSumLoss', 'kwargs': {'sub_terms': sub_terms}},
    }


def our_sides(pair: Pair, weights: dict[str, float], variant: Variant) -> tuple[Config, Config, Config]:
    """Hooks and terms of ours on the last stage; the global term has a learned projection and a dynamic temperature."""
    feature, target = pair.student.layers[-1], pair.teacher.layers[-1]
    student, terms, options = side([feature]), {}, variant.trg
    if 'global' in weights:
        feature = f'student_model.{feature}'
        student, projection = projected(pair)
        options = {**projection, 'temperature': DYNAMIC} | options
    if {'local', 'global'} & weights.keys():
        options = {f'{name}_weight': _moving(weights.get(name, 0.0), variant) for name in ('local', 'global')} | options
        terms['trg'] = term(variant.loss, **paths(feature, target), **options)
    if 'contextual' in weights:
        terms['contextual'] = term(
            'TokenContextualLoss', weights['contextual'], **paths(feature, target), **variant.contextual
        )
    if 'manifold' in weights:
        terms['manifold'] = term('ManifoldLoss', weights['manifold'], **paths(feature, target))
    return side([target]), student, terms


def _moving(weight: float, variant: Variant) -> Any:
    if variant.falls_until is None or weight == 0:
        return weight
    return {'start': weight, 'end': 0.0, 'schedule': 'linear', 'until': variant.falls_until}


def describe(weights: Any) -> str:
    """Weights as one word of a table."""
    return '/'.join(f'{weight:g}' for weight in weights) or '-'
