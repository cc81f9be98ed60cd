"""The GPUs of this machine, and TensorRT's logger."""
