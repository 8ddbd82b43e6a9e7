"""What is different in YAMLs for different trainers: a file a task."""
