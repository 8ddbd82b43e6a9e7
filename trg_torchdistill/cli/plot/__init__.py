"""``trg-torchdistill plot``."""
