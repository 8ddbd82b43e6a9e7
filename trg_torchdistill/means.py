"""Running means of named scalars, kept on their device until they are asked for, so that a step waits for nothing."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Means:
    """Sums and counts of scalars; both are tensors, as ``torch.compile`` would guard a number."""

    def __init__(self) -> None:
        self._totals: dict[str, Tensor] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Counts one more value of each name."""
        for name, value in values.items():
            counted = torch.stack([value.detach().float(), torch.ones_like(value, dtype=torch.float32)])
            self._totals[name] = self._totals.get(name, 0) + counted

    def clear(self) -> None:
        """Begins anew."""
        self._totals = {name: torch.zeros_like(total) for name, total in self._totals.items()}

    def __call__(self) -> dict[str, float]:
        """Returns the mean of each name that was counted since the beginning."""
        totals = {name: total.tolist() for name, total in self._totals.items()}
        return {name: value / count for name, (value, count) in totals.items() if count}
