"""What trained models are worth, and the files of a run."""
