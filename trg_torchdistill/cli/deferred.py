"""The old place of :mod:`trg_torchdistill.cli.recipe.deferred`, which scripts of version 0.1 name; gone in 0.3."""

from trg_torchdistill.cli.recipe.deferred import load_deferred, parse_deferred

__all__ = ['load_deferred', 'parse_deferred']
