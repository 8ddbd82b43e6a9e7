"""Data sets of the sample configurations, named in a YAML by ``!import_call``."""

from trg_torchdistill.datasets.digits import Digits
from trg_torchdistill.datasets.imagenet_lt import ImageNetLT
from trg_torchdistill.datasets.long_tailed import LongTailed

__all__ = ['Digits', 'ImageNetLT', 'LongTailed']
