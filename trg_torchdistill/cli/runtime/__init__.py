"""How a command runs: processes, devices, precision, random state, logs."""
