"""Flows defined, fitted and exported, in torch. Of the server it imports `service.bundle` and `service.onnx` only."""
