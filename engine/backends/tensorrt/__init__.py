"""The backend of TensorRT and of TensorRT for RTX."""
