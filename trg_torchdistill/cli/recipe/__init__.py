"""A YAML as text and as a tree."""
