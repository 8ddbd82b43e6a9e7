"""Data sets and a sampler, named in a YAML by ``!import_call`` and ``!import_get``."""

from trg_torchdistill.datasets.digits import Digits
from trg_torchdistill.datasets.imagenet_lt import ImageNetLT
from trg_torchdistill.datasets.long_tailed import LongTailed
from trg_torchdistill.datasets.sampling import class_balanced_sampler

__all__ = ['Digits', 'ImageNetLT', 'LongTailed', 'class_balanced_sampler']
