"""Named under ``dependencies:``, gives accelerate the attribute that torchdistill reads when the teacher is frozen.

accelerate has had no ``use_fp16`` since 1.0. Without it, a distillation by torchdistill's trainers of texts ends before
its first step, in ``AttributeError: 'AcceleratorState' object has no attribute 'use_fp16'``. It is False here: with
True, torchdistill would turn the weights of the teacher into float16.

YAML::

    dependencies:
      - name: 'custom'
      - name: 'trg_torchdistill'
      - name: 'trg_torchdistill.accelerate'
"""

from __future__ import annotations

from accelerate.state import AcceleratorState

if not hasattr(AcceleratorState, 'use_fp16'):
    AcceleratorState.use_fp16 = False
