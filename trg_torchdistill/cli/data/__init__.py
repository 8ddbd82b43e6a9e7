"""What the data sets and loaders give."""
