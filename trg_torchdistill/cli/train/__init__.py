"""``trg-torchdistill train``."""
