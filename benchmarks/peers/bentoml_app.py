"""BentoML: one worker, batches of up to 64 rows. Arguments: bundle, port, scratch folder."""

import os
import sys
from pathlib import Path

import bentoml
import numpy as np
import onnxruntime


@bentoml.service(workers=1)
class Flow:
    def __init__(self):
        path = Path(os.environ["BENCHMARK_BUNDLE"]) / "forward.onnx"
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=1000)
    def log_prob(self, x: np.ndarray) -> np.ndarray:
        return self.session.run(["log_prob"], {"x": np.asarray(x, np.float32)})[0]


if __name__ == "__main__":
    bundle, port, scratch = sys.argv[1:]
    here = str(Path(__file__).resolve().parent)
    environment = {**os.environ, "BENCHMARK_BUNDLE": bundle, "BENTOML_HOME": scratch, "BENTOML_DO_NOT_TRACK": "1"}
    command = [sys.executable, "-m", "bentoml", "serve", "bentoml_app:Flow", "--working-dir", here]
    os.execve(sys.executable, [*command, "--host", "127.0.0.1", "--port", port], environment)
