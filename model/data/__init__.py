"""Data sets: class tables, readers and generators. Nothing here imports PyTorch."""
