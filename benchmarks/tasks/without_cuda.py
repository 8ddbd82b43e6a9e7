"""Lets torchdistill's ``object_detection.py`` run where there is no GPU: it waits for one even with ``--device cpu``.

For ``dependencies:`` of a YAML.
"""

import torch

if not torch.cuda.is_available():
    torch.cuda.synchronize = lambda device=None: None
