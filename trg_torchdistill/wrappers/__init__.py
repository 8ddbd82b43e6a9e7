"""What stands around the student in training, as auxiliary model wrapper of the host: ``Student4TRG`` and its parts."""

from trg_torchdistill.wrappers.inner import unwrapped
from trg_torchdistill.wrappers.projector import TokenProjector
from trg_torchdistill.wrappers.student import Student4TRG, check_outermost, plain_model
from trg_torchdistill.wrappers.text_mask import TextMask

__all__ = ['Student4TRG', 'TextMask', 'TokenProjector', 'check_outermost', 'plain_model', 'unwrapped']
