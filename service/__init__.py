"""The server. Imports neither torch nor `models`: what was trained reaches it as a bundle on disk."""

from __future__ import annotations

import os

# ONNX Runtime 1.29 and later collects telemetry on Linux unless this is set before it is imported: it leaves a device
# id and an upload queue in the user's home. Whoever wants it sets the variable to 0. Both wings import this package
# before they import onnxruntime.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
