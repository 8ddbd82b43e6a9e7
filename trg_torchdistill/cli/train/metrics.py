"""What is known of an epoch: the means of the terms of the loss, the temperature and the learning rate."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from torch import Tensor, nn

from trg_torchdistill.cli.runtime.processes import Processes
from trg_torchdistill.host import relation_losses, terms_of
from trg_torchdistill.means import Means


class TermMeter:
    """Means of the terms of the host's total loss over the steps of one epoch.

    As a context manager it hooks the term modules. Values stay on their device until they are asked for, so a step
    costs no synchronisation.

    Args:
        criterion: High-level loss of a box.

    Attributes:
        means: Each term's mean, before its weight; those inside TRG's losses are named ``TERM.local`` and so on.
    """

    def __init__(self, criterion: nn.Module) -> None:
        self._terms = {name: term for name, (term, _) in terms_of(criterion).items()}
        self._relations = relation_losses(criterion)
        self._handles: list[Any] = []
        self._latest: dict[str, Tensor] = {}
        self.means = Means()

    def __enter__(self) -> TermMeter:
        self._handles = [
            term.register_forward_hook(partial(self._record_term, name)) for name, term in self._terms.items()
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def means_over(self, processes: Processes) -> dict[str, float]:
        """Returns the means over the steps of all processes, which have made equally many."""
        found = processes.gathered(self.means())
        return {name: sum(means[name] for means in found) / len(found) for name in found[0]}

    def not_finite(self) -> list[str]:
        """Returns the names of the terms whose last value is NaN or infinite."""
        return [name for name, value in self._latest.items() if not math.isfinite(value.item())]

    def _record_term(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        values = {name: output}
        if name in self._relations:
            values |= {f'{name}.{part}': value for part, (_, value) in self._relations[name].terms().items()}
        scalars = {
            name: value.detach().reshape(())
            for name, value in values.items()
            if isinstance(value, Tensor) and value.numel() == 1
        }
        self._latest |= scalars
        self.means.add(scalars)


def temperature_of(criterion: nn.Module) -> float | dict[str, float] | None:
    """Returns the temperature of the TRG terms; a dict by term name when several differ, None when there is none."""
    found = {name: loss.current_temperature for name, loss in relation_losses(criterion).items()}
    known = {name: value for name, value in found.items() if value is not None}
    if not known:
        return None
    return known if len(set(known.values())) > 1 else next(iter(known.values()))


def learning_rate_of(optimizer: Any) -> float | list[float]:
    """Returns the learning rate; a list by parameter group when several differ."""
    rates = [float(group['lr']) for group in optimizer.param_groups]
    return rates if len(set(rates)) > 1 else rates[0]
