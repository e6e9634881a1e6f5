"""What the exporter and the server share of ONNX Runtime. Imports neither."""
