"""Data sets: the COCO panoptic format and the simulated tabletop. Nothing here imports PyTorch."""
