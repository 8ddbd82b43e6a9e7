"""``trg-torchdistill check``."""
