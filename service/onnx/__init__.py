"""The part of ONNX Runtime that exporter and server share: a graph's signature, and how a session of it is opened."""
