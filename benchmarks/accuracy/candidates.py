"""The methods that `lasting.py` compares, by name: of ``CANDIDATES``, some of ours together, or one in another role.

``soft+edges_union`` has the terms of both; they may not have one in common. ``soft_others`` is the control, with a
teacher of other images. ``soft_logitstd`` stands on ``LogitStdKDLoss`` instead of ``KDLoss``.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from ablations import Variant
from methods import TERMS, Weights, method_named

# (alpha, temperature) of the loss of the logits; those of the second one are its authors'.
KD: dict[str, Weights] = {'KDLoss': (0.1, 4.0), 'LogitStdKDLoss': (0.1, 2.0)}
CONTROL = '_others'
ROLES: dict[str, dict[str, str]] = {CONTROL: {'loss': 'TRGLossOfOtherImages'}, '_logitstd': {'base': 'LogitStdKDLoss'}}


def _local(**options: Any) -> Variant:
    return Variant(method='kd+local', trg=options)


def _soft(**options: Any) -> Variant:
    return Variant(method='kd+global', trg={'global_targets': 'teacher', 'temperature': 0.1, **options})


def _proportional(**options: Any) -> Variant:
    return _local(row_distribution='proportional', sigma=0.1, local_reduction='mean', **options)


# `proportional` is local structure preserving of graph KD, `complete` the in-batch term of CIRKD.
CANDIDATES = {
    'kd': Variant(method='kd'),
    'literal': Variant(method='kd+trg'),
    'literal_half': Variant(method='kd+trg', falls_until=0.5),
    'literal_end': Variant(method='kd+trg', falls_until=1.0),
    'local': _local(),
    'edges_teacher': _local(edges='teacher'),
    'edges_union': _local(edges='union'),
    'proportional': _proportional(edges='teacher'),
    'complete': _proportional(num_neighbors=None),
    'soft': _soft(),
    'soft_queue': _soft(queue_size=4096),
    'contextual': Variant(method='kd+contextual', contextual={'normalize_tokens': True, 'temperature': 0.1}),
    **{name: Variant(method=f'kd+{name}') for name in ('at', 'spkd', 'pkt', 'srd', 'dist', 'manifold')},
}


def variant_named(name: str) -> Variant:
    """Returns what a name stands for.

    Raises:
        ArgumentTypeError: If it stands for nothing.
    """
    for suffix, change in ROLES.items():
        if name.endswith(suffix):
            return _in_role(variant_named(name.removesuffix(suffix)), name, change)
    parts = name.split('+')
    unknown = [part for part in parts if part not in CANDIDATES]
    if unknown:
        raise argparse.ArgumentTypeError(
            f'expected some of {", ".join(CANDIDATES)}, joined by `+`, got {unknown[0]} in {name}'
        )
    first, *others = (CANDIDATES[part] for part in parts)
    for other in others:
        first = _together(first, other, name)
    return first


def method(name: str) -> str:
    """The type of an argument of the command line: a name that stands for something."""
    variant_named(name)
    return name


def terms_of(variant: Variant) -> tuple[str, ...]:
    """The terms of ours that a variant has."""
    return method_named(variant.method).terms


def _in_role(variant: Variant, name: str, change: dict[str, str]) -> Variant:
    if 'loss' in change and not {'local', 'global'} & set(terms_of(variant)):
        raise argparse.ArgumentTypeError(f'expected a method with TRG to get a teacher of other images, got {name}')
    return replace(variant, **change)


def _together(first: Variant, second: Variant, name: str) -> Variant:
    """Both variants on one ``KDLoss``."""
    owners = [terms_of(each) for each in (first, second)]
    if not all(owners) or set(owners[0]) & set(owners[1]):
        raise argparse.ArgumentTypeError(f'expected methods of ours with different terms, joined by `+`, got {name}')
    terms = [term for term in TERMS if any(term in each for each in owners)]
    return replace(
        first,
        method='+'.join(['kd', *terms]),
        trg=first.trg | second.trg,
        contextual=first.contextual | second.contextual,
        falls_until=first.falls_until or second.falls_until,
    )
