"""The runtime: graphs of ONNX Runtime on the CPU or on a CUDA device, and the processors that the machine grants."""
