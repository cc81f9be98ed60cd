"""The four PanRT ops: contract (OPS.md), NumPy reference, CPU kernels and ONNX function bodies."""
