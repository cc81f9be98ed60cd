"""A simulated CUDA driver for the real cuda-python, and a fake TensorRT on it."""
