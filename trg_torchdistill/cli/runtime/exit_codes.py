"""Exit codes of the command; those of an error of ours stand with it, in ``errors``."""

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130
