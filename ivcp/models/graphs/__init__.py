"""The classifier as an ONNX graph: traced, its weights rounded, run by ONNX Runtime or OpenVINO."""
