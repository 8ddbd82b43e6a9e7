"""``trg-torchdistill eval``."""
