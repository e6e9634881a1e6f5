"""`python -m benchmarks.graphs`: the exported graphs beside ones that are written by hand, of the same flow.

By hand is what somebody who knows ONNX writes for this one flow, from its weights, with columns and operators that suit
it. Both run as the server runs them: one thread, the same options.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, Final, Literal

import click
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from zuko.nn import Linear

from benchmarks.flow import make_flow
from benchmarks.measure import MeasurementFailed
from benchmarks.table import Table, at_most, instead
from models.adapters.zuko import Coupling
from models.flow import Flow
from models.graph import OPSET, export_graph
from models.preprocess import Standardize
from models.session import IN_AND_OUT
from service.engine.devices import open_on_cpu

BATCHES: Final = {4: 1.3, 256: 1.1, 1000: 1.1}
"""Rows of a batch -> by what factor the exported graph may take longer. A single row is served in a batch of 4."""
TOLERANCE: Final = 1e-5
OUTPUTS: Final = {
    "forward": ("x", ("z", "log_abs_det_jacobian", "log_prob")),
    "inverse": ("z", ("x", "log_abs_det_jacobian", "log_prob")),
}

Float32 = npt.NDArray[np.float32]
Direction = Literal["forward", "inverse"]


@click.command()
@click.option("--width", "widths", type=click.IntRange(min=2), multiple=True, help="Columns; 16, 2 and 64 if none.")
@click.option("--rounds", type=click.IntRange(min=1), default=21, show_default=True)
def main(widths: Sequence[int], rounds: int) -> None:
    """Print nodes and times, exported over written by hand, with their spread."""
    table = Table()
    for width in dict.fromkeys(widths or (16, 2, 64)):
        flow = make_flow(width).eval().requires_grad_(requires_grad=False)
        for direction in ("forward", "inverse"):
            measure(table, flow, direction, rounds)
    click.echo(f"ONNX Runtime {onnxruntime.__version__}, one thread\n\n{table.markdown()}")


def measure(table: Table, flow: Flow, direction: Direction, rounds: int) -> None:
    """Both graphs of one direction, in turn, on the same rows."""
    graphs = [export_graph(flow, direction), ByHand(flow, direction).graph()]
    nodes = [len(onnx.load_from_string(graph).graph.node) for graph in graphs]
    table.line(flow.width, f"{direction}.onnx", "nodes / by hand").ratio(*nodes)
    ours, theirs = (open_on_cpu(graph) for graph in graphs)
    for batch, bound in BATCHES.items():
        line = table.line(flow.width, f"{direction}.onnx, {batch} rows", "time / by hand", at_most(bound), "us")
        rows = np.random.default_rng(batch).normal(size=(batch, flow.width)).astype(np.float32)
        feed = {IN_AND_OUT[direction].given: rows}
        with instead(line):
            compare(ours.run(None, feed), theirs.run(None, feed))
            runs = max(10, 20_000 // (batch + 20))
            for number in range(rounds):
                pair = [ours, theirs] if number % 2 else [theirs, ours]
                taken = {session: seconds(session, feed, runs) for session in pair}
                line.ratio(1e6 * taken[ours], 1e6 * taken[theirs])


def compare(ours: Sequence[Float32], theirs: Sequence[Float32]) -> None:
    """Hold two graphs' answers against each other."""
    for mine, other in zip(ours, theirs, strict=True):
        error = float((np.abs(mine - other) / (1 + np.abs(other))).max())
        if mine.shape != other.shape or not error <= TOLERANCE:
            raise MeasurementFailed(f"the two graphs differ by {error:.2g}")


def seconds(session: Any, feed: dict[str, Float32], runs: int) -> float:
    """The median processor time of a run, all of it in the calling thread: what else runs here counts little."""
    taken = []
    for _ in range(runs):
        began = time.thread_time()
        session.run(None, feed)
        taken.append(time.thread_time() - began)
    return float(np.median(taken))


class ByHand:
    """One direction of a flow of affine couplings with alternating masks, as ONNX.

    The columns are taken apart once and put together once; in between each half is a tensor of its own. A conditioner
    is three Gemm, its output cut in two; the scale L a / (L + |a|) is L Softsign(a / L), with the division done in the
    last layer's weight.

    Args:
        flow: `Standardize`, and couplings as `real_nvp` makes them.
        direction: which.
    """

    def __init__(self, flow: Flow, direction: Direction) -> None:
        self._flow = flow
        self._direction = direction
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def graph(self) -> bytes:
        """The bytes of the file."""
        standardize, *couplings = list(self._flow.bijections)
        assert isinstance(standardize, Standardize)
        given, outputs = IN_AND_OUT[self._direction]
        back = self._direction == "inverse"
        mean, std = standardize.mean.numpy(), standardize.std.numpy()
        value = given
        if not back:
            value = self._node("Div", self._node("Sub", given, mean), std)
        odd = np.arange(self._flow.width) % 2 == 1
        columns = np.concatenate([np.flatnonzero(odd), np.flatnonzero(~odd)])
        halves = {side: self._node("Gather", value, np.flatnonzero(odd == side), axis=1) for side in (True, False)}
        scales = []
        for coupling in reversed(couplings) if back else couplings:
            assert isinstance(coupling, Coupling)
            side = bool(odd[coupling.first[0]])
            shift, scale = self._conditioner(coupling, halves[side])
            factor = self._node("Exp", scale)
            moved = halves[not side]
            halves[not side] = (
                self._node("Div", self._node("Sub", moved, shift), factor)
                if back
                else self._node("Add", self._node("Mul", moved, factor), shift)
            )
            scales.append(scale)
        whole = self._node("Concat", halves[True], halves[False], axis=1)
        order = np.argsort(columns)
        if back:
            ordered = self._node("Gather", whole, order, axis=1)
            self._node("Add", self._node("Mul", ordered, std), mean, output=outputs[0])
        else:
            self._node("Gather", whole, order, axis=1, output=outputs[0])
        self._densities(scales, "z", float(np.log(std).sum()), back=back)
        return self._bytes(given, outputs)

    def _conditioner(self, coupling: Coupling, half: str) -> tuple[str, str]:
        """Shift and scale, each [N, B], from the columns that condition."""
        layers = [layer for layer in coupling.lazy.hyper if isinstance(layer, Linear)]
        clip, value = coupling.lazy.hyper[0], half
        value = self._node("Clip", value, np.float32(clip.min_val), np.float32(clip.max_val))
        limit = np.float32(-math.log(0.05))
        for layer in layers[:-1]:
            weight, bias = (p.detach().numpy() for p in (layer.weight, layer.bias))
            value = self._node("Relu", self._node("Gemm", value, np.ascontiguousarray(weight.T), bias))
        weight, bias = (p.detach().numpy() for p in (layers[-1].weight, layers[-1].bias))
        weight = np.concatenate([weight[0::2], weight[1::2] / limit]).T
        bias = np.concatenate([bias[0::2], bias[1::2] / limit])
        value = self._node("Gemm", value, np.ascontiguousarray(weight), bias)
        shift, raw = f"shift_{value}", f"raw_{value}"
        sizes = self._constant(np.array([bias.size // 2] * 2))
        self._nodes.append(helper.make_node("Split", [value, sizes], [shift, raw], axis=1))
        return shift, self._node("Mul", self._node("Softsign", raw), limit)

    def _densities(self, scales: Sequence[str], z: str, log_std: float, *, back: bool) -> None:
        """log_abs_det_jacobian and log_prob, from the couplings' scales and z."""
        axis, one = np.array([1]), {"keepdims": 0}
        terms = self._node("ReduceSum", self._node("Concat", *scales, axis=1), axis, **one)
        if back:
            ladj = self._node("Sub", np.float32(log_std), terms, output="log_abs_det_jacobian")
        else:
            ladj = self._node("Sub", terms, np.float32(log_std), output="log_abs_det_jacobian")
        norm = self._node("Mul", self._node("ReduceSumSquare", z, axis, **one), np.float32(-0.5))
        base = self._node("Sub", norm, np.float32(self._flow.width / 2 * math.log(2 * math.pi)))
        self._node("Sub" if back else "Add", base, ladj, output="log_prob")

    def _node(self, operator: str, *inputs: str | npt.ArrayLike, output: str = "", **attributes: int) -> str:
        names = [each if isinstance(each, str) else self._constant(np.asarray(each)) for each in inputs]
        name = output or f"{operator}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, names, [name], **attributes))
        return name

    def _constant(self, array: npt.NDArray[Any]) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants[name] = numpy_helper.from_array(array, name)
        return name

    def _bytes(self, given: str, outputs: tuple[str, str, str]) -> bytes:
        kind, width = onnx.TensorProto.FLOAT, self._flow.width
        shapes = zip(outputs, (["N", width], ["N"], ["N"]), strict=True)
        graph = helper.make_graph(
            self._nodes,
            "by_hand",
            [helper.make_tensor_value_info(given, kind, ["N", width])],
            [helper.make_tensor_value_info(name, kind, shape) for name, shape in shapes],
            list(self._constants.values()),
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        data: bytes = model.SerializeToString()
        return data


if __name__ == "__main__":
    main()
