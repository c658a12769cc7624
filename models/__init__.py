"""The PyTorch reference model. It knows nothing of ONNX, TensorRT or deployment."""
