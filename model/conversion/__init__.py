"""Checkpoints of other frameworks: their configurations, their class names, and their names of tensors."""
