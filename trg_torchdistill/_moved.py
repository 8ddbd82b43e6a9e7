"""Names that stood elsewhere in an earlier version: found in their new place, with one warning that tells it."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any


def moved(module: str, **places: str) -> Callable[[str], Any]:
    """Returns the ``__getattr__`` of a module whose names of version 0.1 are in other ones since; gone in 0.3.

    Args:
        module: The module that had the names.
        places: The module that has each name now.
    """

    def find(name: str) -> Any:
        if name not in places:
            raise AttributeError(f'module {module!r} has no attribute {name!r}')
        message = f'`{module}.{name}` is now `{places[name]}.{name}`; the old name goes with version 0.3'
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module(places[name]), name)

    return find
