"""The old place of :mod:`trg_torchdistill.cli.recipe.deferred`."""

from trg_torchdistill._moved import moved

_PLACE = 'trg_torchdistill.cli.recipe.deferred'

__getattr__ = moved(__name__, load_deferred=_PLACE, parse_deferred=_PLACE)
