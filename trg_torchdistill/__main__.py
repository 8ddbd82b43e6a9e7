"""``python -m trg_torchdistill`` is the same as ``trg-torchdistill``."""

import sys

from trg_torchdistill.cli.main import main

if __name__ == '__main__':
    sys.exit(main())
