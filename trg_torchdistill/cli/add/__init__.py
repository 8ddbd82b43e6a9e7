"""``trg-torchdistill add``."""
