"""Graphs that run: ONNX Runtime on the CPU or on a CUDA device, and what the machine grants."""
