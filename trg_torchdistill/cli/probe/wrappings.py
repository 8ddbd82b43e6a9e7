"""Finds the weights in a checkpoint that does not fit, says what is wrong with them, and how to convert it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse

import torch
from torch import nn

from trg_torchdistill.files import is_address

MAX_NAMES = 3
MAX_DEPTH = 3
WRAPPERS = {'module': 'DataParallel', '_orig_mod': 'torch.compile'}


@dataclass(frozen=True)
class Wrapped:
    """Weights inside a checkpoint.

    Attributes:
        place: Keys under which they are.
        prefix: What stands before the names of the model's own parameters.
        inner: Whether the names of wrappers inside the model's names are left out too.
        weights: The weights by the names that remain.
    """

    place: tuple[str, ...]
    prefix: str
    inner: bool
    weights: dict[str, Any]

    def __str__(self) -> str:
        words = [f'under `{".".join(self.place)}`'] if self.place else []
        if self.inner:
            words.append('named with parts of wrappers, `module.` or `_orig_mod.`')
        elif self.prefix:
            makers = [f' ({maker})' for part, maker in WRAPPERS.items() if self.prefix == f'{part}.']
            words.append(f'named with `{self.prefix}` in front{"".join(makers)}')
        return ', '.join(words)

    def conversion(self, source: str) -> str:
        """Returns the line that writes these weights alone, as torchdistill reads them."""
        place = ''.join(f'[{json.dumps(key)}]' for key in self.place)
        name, condition = '', ''
        if self.inner:
            name = f'".".join(p for p in k.split(".") if p not in {tuple(WRAPPERS)})'.replace("'", '"')
        elif self.prefix:
            name, condition = f'k[{len(self.prefix)}:]', f' if k.startswith({json.dumps(self.prefix)})'
        weights = f'{{{name}: v for k, v in c{place}.items(){condition}}}' if name else f'c{place}'
        return _line(source, f'torch.save({{"model": {weights}}}, {_new_file(source)})')


def conversion_of_unsafe(source: str) -> str:
    """Returns the line that reads a file with any objects, and writes the largest set of weights in it alone."""
    return _line(
        source,
        's = lambda v: v.state_dict() if hasattr(v, "state_dict") else v; c = s(c); '
        'd = [v for v in [c, *map(s, c.values())] if isinstance(v, dict)]; '
        f'torch.save({{"model": max(d, key=lambda v: sum(map(torch.is_tensor, v.values())))}}, {_new_file(source)})',
    )


def misfit(model: nn.Module, checkpoint: Mapping[str, Any], source: str) -> str:
    """Says why the weights of a checkpoint were not loaded, and what to change; empty where names and shapes agree.

    Args:
        model: The model that refused them; it may be changed.
        checkpoint: Content of the file, which the model refused.
        source: File or address, for the line that converts it.
    """
    wanted = model.state_dict()
    found = list(_candidates(wanted, checkpoint))
    if not found:
        return f'it holds no weights, but {_names(checkpoint)}; name a file with the `state_dict()` of the model'
    num_fitting = [sum(_shape(each.weights.get(name)) == _shape(wanted[name]) for name in wanted) for each in found]
    best = found[num_fitting.index(max(num_fitting))]
    if str(best) not in ('', 'under `model`') and _loads(model, best.weights):
        equal = zip(found, num_fitting, strict=True)
        others = dict.fromkeys(each.place for each, number in equal if number == max(num_fitting) and each.place)
        more = [f'`{".".join(place)}`' for place in others if place != best.place]
        also = f' (others with its keys: under {", ".join(more)})' if more else ''
        return (
            f'its weights are {best}{also}, and torchdistill reads bare weights, or those under `model`; convert the '
            f'file and name the new one: {best.conversion(source)}'
        )
    text = difference(wanted, best.weights)
    where = f'of its weights {best}, ' if str(best) else ''
    return text and f'{where}{text}; name a file of this model, or change the `kwargs:` of the model'


def difference(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Says which names and shapes of weights differ, nothing if none does."""
    missing = [name for name in wanted if name not in found]
    unexpected = [name for name in found if name not in wanted]
    changed = [name for name in wanted if name in found and _shape(wanted[name]) != _shape(found[name])]
    parts = [f'missing {_names(missing)}'] if missing else []
    parts += [f'unexpected {_names(unexpected)}'] if unexpected else []
    shapes = [f'`{name}` is {_shape(found[name])}, not {_shape(wanted[name])}' for name in changed[:MAX_NAMES]]
    more = f', and {len(changed) - MAX_NAMES} more shapes' if len(changed) > MAX_NAMES else ''
    parts += [', '.join(shapes) + more] if changed else []
    return '; '.join(parts)


def _candidates(wanted: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> Iterator[Wrapped]:
    """Yields all sets of weights in a checkpoint, in the readings of their names that could be the model's."""
    ends = [f'.{name}' for name in list(wanted)[:1] + list(wanted)[-1:]]
    usual = ('model',) if isinstance(checkpoint.get('model'), Mapping) else ()
    for place, content in sorted(_containers(checkpoint), key=lambda item: item[0] != usual):
        prefixes = [key[: -len(end) + 1] for end in ends for key in content if key.endswith(end)]
        for prefix in dict.fromkeys(['', *prefixes]):
            weights = {key[len(prefix) :]: value for key, value in content.items() if key.startswith(prefix)}
            yield Wrapped(place, prefix, False, weights)
        bare = {'.'.join(part for part in key.split('.') if part not in WRAPPERS): key for key in content}
        yield Wrapped(place, '', True, {name: content[key] for name, key in bare.items()})


def _containers(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yields every mapping with tensors by name, and where it is."""
    if not isinstance(value, Mapping) or len(place) > MAX_DEPTH:
        return
    named = {key: item for key, item in value.items() if isinstance(key, str)}
    if any(isinstance(item, torch.Tensor) for item in named.values()):
        yield place, named
    for key, item in named.items():
        yield from _containers(item, (*place, key))


def _loads(model: nn.Module, weights: Mapping[str, Any]) -> bool:
    try:
        model.load_state_dict(weights)
    except Exception:  # a model may load its weights in a way of its own
        return False
    return True


def _names(names: Collection[str]) -> str:
    shown = ', '.join(f'`{name}`' for name in list(names)[:MAX_NAMES])
    return f'{len(names)} key{"s" * (len(names) != 1)}{": " * bool(names)}{shown}{", ..." * (len(names) > MAX_NAMES)}'


def _shape(value: Any) -> list[int] | str:
    return list(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__


def _new_file(source: str) -> str:
    path = PurePosixPath(urlparse(source).path).name if is_address(source) else source
    return json.dumps(str(Path(path).with_name(f'{Path(path).stem}-weights.pt')))


def _line(source: str, program: str) -> str:
    file = json.dumps(source)
    read = f'torch.load({file}, map_location="cpu", weights_only=False)'
    if is_address(source):
        read = f'torch.hub.load_state_dict_from_url({file}, map_location="cpu")'
    return shlex.join(['python', '-c', f'import torch; c = {read}; {program}'])
