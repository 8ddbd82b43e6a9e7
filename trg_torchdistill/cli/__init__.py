"""What a user runs: ``trg-torchdistill train`` and ``trg-torchdistill demo``."""
