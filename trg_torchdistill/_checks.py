"""Checks of user input, and the only place that words their errors.

Every message has the form "expected `name` to be ..., got ...". A caller that knows where the value was written appends
the line to change with :func:`advice`.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
import math
import numbers
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, ParamSpec, TypeVar

import torch

from trg_torchdistill.errors import TRGError

P = ParamSpec('P')
T = TypeVar('T')
RENAMED = {
    'affinity_support': "it is now `row_distribution`: 'softmax_all' is what 'all' was, 'softmax_edges' 'neighbors'",
    'rows': 'it is now an argument of the call of `functional.LocalTerm` and `GlobalTerm`',
}
SMALLEST, LARGEST, LARGEST_INTEGER = 1e-30, 1e30, 2**63 - 1


def check_choice(name: str, value: str, choices: Collection[str]) -> str:
    """Returns ``value``; raises TRGError unless it is one of ``choices``."""
    if value not in choices:
        options = ', '.join(f"'{choice}'" for choice in choices)
        raise TRGError(f'expected `{name}` to be one of {options}, got {value!r}{nearest(value, choices)}')
    return value


def check_bool(name: str, value: object) -> bool:
    """Returns ``value``; raises TRGError unless it is True or False."""
    if not isinstance(value, bool):
        raise TRGError(f'expected `{name}` to be true or false, got {value!r}')
    return value


def check_text(name: str, value: object) -> None:
    """Raises TRGError unless ``value`` is a non-empty string."""
    if not isinstance(value, str) or not value:
        hint = f" (a number in YAML; write '{value}')" if type(value) is int else ''
        raise TRGError(f'expected `{name}` to be a non-empty string, got {value!r}{hint}')


def check_integer(name: str, value: object, minimum: int | None = None) -> int:
    """Returns ``value`` as an int; raises TRGError unless it is an integer of at most 64 bits, at least ``minimum``."""
    wanted = 'an integer' if minimum is None else f'an integer >= {minimum}'
    number = _unwrapped(value)
    if isinstance(number, bool) or not isinstance(number, numbers.Integral):
        raise TRGError(f'expected `{name}` to be {wanted}, got {value!r}{_text_hint(value)}')
    integer = int(number)
    if minimum is not None and integer < minimum:
        raise TRGError(f'expected `{name}` to be {wanted}, got {integer}')
    if abs(integer) > LARGEST_INTEGER:
        raise TRGError(f'expected `{name}` to be an integer of at most 64 bits, got one of {integer.bit_length()}')
    return integer


def check_positive(name: str, value: object, expected: str = 'a number > 0') -> float:
    """Returns ``value`` as a float; raises TRGError unless it is a number > 0 and float32 can divide by it."""
    number = _number(name, value, expected)
    if number <= 0:
        raise TRGError(f'expected `{name}` to be {expected}, got {value}')
    if number < SMALLEST:
        raise TRGError(f'expected `{name}` to be {expected}, at least {SMALLEST:g}, got {value}')
    return number


def check_not_negative(name: str, value: object, expected: str = 'a number >= 0') -> float:
    """Returns ``value`` as a float; raises TRGError unless it is a finite number, at least 0."""
    number = _number(name, value, expected)
    if number < 0:
        raise TRGError(f'expected `{name}` to be {expected}, got {number}')
    return number


def check_matrix(name: str, value: object) -> None:
    """Raises unless ``value`` is a floating-point tensor [M, D]; of no tokens, M = 0, where all are padding."""
    _check_tensor(name, value, 2, '[M, D]', may_be_empty=True)


def check_sequence(name: str, value: object) -> None:
    """Raises unless ``value`` is a floating-point tensor [B, N, D]."""
    _check_tensor(name, value, 3, '[B, N, D]')


def check_map(name: str, value: object) -> None:
    """Raises unless ``value`` is a floating-point tensor [B, D, h, w]."""
    _check_tensor(name, value, 4, '[B, D, h, w]')


def check_floating(name: str, value: object, may_be_empty: bool = False) -> None:
    """Raises TRGError unless ``value`` is a floating-point tensor of 16 bits or more that holds values."""
    if not isinstance(value, torch.Tensor):
        raise TRGError(f'expected `{name}` to be a tensor, got {type(value).__name__}')
    if not value.is_floating_point() or value.element_size() < 2:
        raise TRGError(f'expected `{name}` to be a floating-point tensor of 16 bits or more, got {value.dtype}')
    if value.numel() == 0 and not may_be_empty:
        raise TRGError(f'expected `{name}` to hold values, got an empty tensor of shape {list(value.shape)}')


def check_mask(value: object, shape: tuple[int, int]) -> None:
    """Raises TRGError unless ``value`` is a bool tensor [B, N] of that shape."""
    if not isinstance(value, torch.Tensor) or value.dtype != torch.bool:
        found = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
        raise TRGError(f'expected `mask` to be a bool tensor [B, N], got {found}')
    if value.shape != shape:
        raise TRGError(f'expected `mask` to be [B, N] = {list(shape)}, got shape {list(value.shape)}')


def check_counts(what: str, value: torch.Tensor) -> torch.Tensor:
    """Returns where a mask is not 0; raises TRGError for one that is added to logits, 0 for what counts."""
    if value.dtype != torch.bool and not bool((value >= 0).all()):
        raise TRGError(
            f'expected {what} to be a mask with 1 for what counts and 0 for padding, got values down to '
            f'{value.min().item():g}, as of a feature, or of a mask that is added to logits'
        )
    return value != 0


def check_rows(rows: range | None, count: int) -> range:
    """Returns ``rows``, or for None all of ``count`` rows; raises unless they are consecutive ones among these."""
    if rows is None:
        return range(count)
    if not isinstance(rows, range):
        raise TRGError(f'expected `rows` to be a range or None, got {rows!r}')
    if rows.step != 1 or not 0 <= rows.start <= rows.stop <= count:
        raise TRGError(f'expected `rows` to be a range of step 1 within the {count} tokens, got {rows}')
    return rows


def check_same(what: str, first: int, second: int, names: tuple[str, str] = ('student', 'teacher')) -> None:
    """Raises TRGError unless both tensors have the same number of something."""
    if first != second:
        raise TRGError(f'expected `{names[0]}` and `{names[1]}` to have the same {what}, got {first} and {second}')


def set_checked(frozen: object, **values: float) -> None:
    """Keeps checked numbers in a frozen dataclass, as plain ones."""
    for name, value in values.items():
        object.__setattr__(frozen, name, value)


def nearest(value: object, known: Collection[str]) -> str:
    """Returns "; did you mean `x`?" for the entry of ``known`` that is close to ``value``, else an empty string.

    Module paths that end in ``value`` are the closest; up to three of them are named. Capital letters do not count.
    """
    matches = sorted(name for name in known if name.endswith(f'.{value}'))[:3]
    if not matches:
        by_lower_case = {name.lower(): name for name in sorted(known)}
        close = difflib.get_close_matches(str(value).lower(), by_lower_case, n=1)
        matches = [by_lower_case[name] for name in close]
    return f'; did you mean `{"` or `".join(matches)}`?' if matches else ''


def _hint(key: str, known: Collection[str]) -> str:
    return f'; {RENAMED[key]}' if key in RENAMED else nearest(key, known)


@contextlib.contextmanager
def advice(text: str) -> Iterator[None]:
    """Appends ``text``, the line to change, to any error of ours raised inside; those of others pass."""
    try:
        yield
    except TRGError as error:
        raise type(error)(f'{error}; {text}') from error.__cause__


def bind(owner: str, parameters: Collection[inspect.Parameter], given: Collection[str]) -> None:
    """Raises TRGError unless ``given`` names all of the ``parameters`` that need a value, and nothing else."""
    known = [parameter.name for parameter in parameters]
    for key in given:
        if key not in known:
            raise TRGError(f'expected `{owner}` to have keys among {known}, got `{key}`{_hint(key, known)}')
    for parameter in parameters:
        if parameter.default is parameter.empty and parameter.name not in given:
            raise TRGError(f'expected `{owner}` to have the key `{parameter.name}`, got {list(given) or "none"}')


def explain_keywords(owner: str, from_host: Collection[str] = ()) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Makes the constructor of ``owner`` name an unknown or a missing keyword, and the nearest known one.

    Keywords ``from_host`` are not for the YAML and not listed.
    """

    def decorate(init: Callable[P, None]) -> Callable[P, None]:
        parameters = list(inspect.signature(init).parameters.values())[1:]

        @functools.wraps(init)
        def checked(*args: P.args, **kwargs: P.kwargs) -> None:
            by_name = [each for each in parameters[len(args) - 1 :] if each.name not in from_host]
            given = [name for name in kwargs if name not in from_host]
            with advice(f'change it under the `kwargs:` of `{owner}`'):
                bind(owner, by_name, given)
            init(*args, **kwargs)

        return checked

    return decorate


def build(cls: Callable[..., T], name: str, options: Any) -> T:
    """Builds ``cls`` from the mapping ``options`` written under ``name``; None stands for an empty mapping.

    Raises:
        TRGError: If ``options`` is no mapping, or has a key or a value that ``cls`` does not take.
    """
    parameters = inspect.signature(cls).parameters.values()
    options = {} if options is None else options
    if not isinstance(options, Mapping):
        known = [parameter.name for parameter in parameters]
        raise TRGError(f'expected `{name}` to be a mapping with keys among {known}, got {options!r}')
    bind(name, parameters, options)
    with advice(f'it stands under `{name}:`'):
        return cls(**options)


def _number(name: str, value: object, expected: str) -> float:
    real = _unwrapped(value)
    if isinstance(real, bool) or not isinstance(real, numbers.Real):
        raise TRGError(f'expected `{name}` to be {expected}, got {value!r}{_text_hint(value)}')
    try:
        number = float(real)
    except OverflowError:
        number = math.inf
    if number != number or abs(number) == math.inf:
        raise TRGError(f'expected `{name}` to be {expected}, got {number}')
    if abs(number) > LARGEST:
        raise TRGError(f'expected `{name}` to be {expected}, at most {LARGEST:g}, got {number}')
    return number


def _unwrapped(value: object) -> object:
    """The number in a tensor without dimensions that wants no gradient; whatever else as it is."""
    if isinstance(value, torch.Tensor) and value.ndim == 0 and not value.requires_grad:
        return value.item()
    return value


def _text_hint(value: object) -> str:
    try:
        number = float(value) if isinstance(value, str) else None
    except ValueError:
        number = None
    return '' if number is None else f' (a string in YAML; write {int(number) if number.is_integer() else number})'


def _check_tensor(name: str, value: object, rank: int, shape: str, may_be_empty: bool = False) -> None:
    check_floating(name, value, may_be_empty)
    found = list(value.shape) if isinstance(value, torch.Tensor) else []
    if len(found) != rank:
        raise TRGError(f'expected `{name}` to be a tensor {shape}, got shape {found}')
