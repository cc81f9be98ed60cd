"""PanRT: real-time panoptic segmentation, from a PyTorch Panoptic FPN to an engine that streams.

Importing this package is cheap and never imports PyTorch; `panrt.model` and `panrt.export` do when they are imported.
"""

from importlib.metadata import version

__version__ = version("panrt")

__all__ = ["__version__"]
