"""The network in PyTorch: backbones, FPN, heads, losses, training, checkpoints and panoptic quality."""
