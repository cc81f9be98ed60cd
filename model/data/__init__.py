"""Data sets: class tables, readers and the simulated tabletop. Nothing here imports PyTorch."""
