"""The GPU that is here, and the log of TensorRT."""
