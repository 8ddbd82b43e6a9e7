"""TRG for torchdistill: importing this package registers the keys of :mod:`trg_torchdistill.registration`.

In a YAML::

    dependencies:
      - name: 'trg_torchdistill'
"""

from trg_torchdistill._version import __version__
from trg_torchdistill.errors import TRGError
from trg_torchdistill.functional import contextual_loss, global_relationship_loss, local_preserving_loss
from trg_torchdistill.losses import TokenContextualLoss, TRGLoss
from trg_torchdistill.registration import register
from trg_torchdistill.schedules import TemperatureSchedule
from trg_torchdistill.tokens import Tokenizer
from trg_torchdistill.wrappers import Student4TRG

__all__ = [
    'Student4TRG',
    'TRGError',
    'TRGLoss',
    'TemperatureSchedule',
    'TokenContextualLoss',
    'Tokenizer',
    '__version__',
    'contextual_loss',
    'global_relationship_loss',
    'local_preserving_loss',
    'register',
]

register()
