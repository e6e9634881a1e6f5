"""MLServer: a custom runtime, adaptive batching of up to 64 rows. Arguments: bundle, port, scratch folder."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Flow(MLModel):
    async def load(self):
        path = Path(self.settings.parameters.uri) / "forward.onnx"
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload):
        x = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32, copy=False)
        log_prob = self.session.run(["log_prob"], {"x": x})[0]
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output("log_prob", log_prob[:, None])]
        )


if __name__ == "__main__":
    bundle, port, scratch = sys.argv[1:]
    # MLServer takes its ports from a file, and its model's class from a module on its path.
    ports = {"http_port": int(port), "grpc_port": int(port) + 1, "metrics_port": int(port) + 2}
    settings = {"host": "127.0.0.1", **ports, "parallel_workers": 0, "debug": False}
    model = {
        "name": "flow",
        "implementation": "mlserver_app.Flow",
        "parameters": {"uri": bundle},
        "max_batch_size": 64,
        "max_batch_time": 0.001,
    }
    folder = Path(scratch)
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent)}
    command = [sys.executable, "-c", "from mlserver.cli import main; main()", "start", scratch]
    os.execve(sys.executable, command, environment)
