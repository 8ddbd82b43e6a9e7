"""``trg-torchdistill demo``."""
