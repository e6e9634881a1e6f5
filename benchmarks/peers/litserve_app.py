"""LitServe: one worker, batches of up to 64 requests of one row. Arguments: bundle, port, scratch folder."""

import sys

import litserve
import numpy as np
import onnxruntime


class LogProb(litserve.LitAPI):
    def setup(self, device):  # noqa: ARG002  LitServe's signature
        self.session = onnxruntime.InferenceSession(f"{sys.argv[1]}/forward.onnx", providers=["CPUExecutionProvider"])

    def decode_request(self, request):
        return np.asarray(request["x"], np.float32)

    def batch(self, inputs):
        self.sizes = [len(x) for x in inputs]
        return np.concatenate(inputs)

    def predict(self, x):
        return self.session.run(["log_prob"], {"x": x})[0]

    def unbatch(self, output):
        return np.split(output, np.cumsum(self.sizes)[:-1])

    def encode_response(self, output):
        return {"log_prob": output.tolist()}


if __name__ == "__main__":
    api = LogProb(max_batch_size=64, batch_timeout=0.001)
    server = litserve.LitServer(api, accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")
