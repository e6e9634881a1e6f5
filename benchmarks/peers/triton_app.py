"""Triton through pytriton: one instance, dynamic batches of up to 64 rows. Arguments: bundle, port, scratch folder."""

import sys

import numpy as np
import onnxruntime
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

if __name__ == "__main__":
    bundle, port, scratch = sys.argv[1:]
    session = onnxruntime.InferenceSession(f"{bundle}/forward.onnx", providers=["CPUExecutionProvider"])

    @batch
    def log_prob(x):
        return {"log_prob": session.run(["log_prob"], {"x": x})[0][:, None]}

    width = session.get_inputs()[0].shape[1]
    batcher = DynamicBatcher(max_queue_delay_microseconds=1000)
    config = TritonConfig(http_port=int(port), allow_grpc=False, allow_metrics=False, http_address="127.0.0.1")
    with Triton(config=config, workspace=f"{scratch}/triton") as triton:
        triton.bind(
            model_name="flow",
            infer_func=log_prob,
            inputs=[Tensor(name="x", dtype=np.float32, shape=(width,))],
            outputs=[Tensor(name="log_prob", dtype=np.float32, shape=(1,))],
            config=ModelConfig(max_batch_size=64, batcher=batcher),
        )
        triton.serve()
