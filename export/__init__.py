"""From a model to one portable ONNX file, and from that to a TensorRT engine."""
