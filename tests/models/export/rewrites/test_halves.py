from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch

from models.export.exported_graph import ExportedGraph
from models.export.graph import export_graph
from models.export.rewrites.halves import store_halves
from models.flows.flow import Flow
from models.flows.linear import FixedLinear
from service.bundle.bases import NormalBase
from service.bundle.operators import check_graph


def graph(*, halves: bool) -> tuple[bytes, np.ndarray]:
    matrix = torch.randn(72, 72, generator=torch.Generator().manual_seed(0)) / 8 + torch.eye(72)
    if halves:
        matrix = matrix.half().float()
    flow = Flow((72,), [FixedLinear(matrix)], NormalBase()).eval()
    return export_graph(flow, "forward"), matrix.numpy()


def test_a_matrix_of_half_precision_takes_half_the_bytes_and_means_the_same() -> None:
    (small, matrix), (large, _) = graph(halves=True), graph(halves=False)
    assert len(large) - len(small) > 72 * 72 * 2 - 400
    assert (
        check_graph(small, "forward.onnx").operators["Cast"] == check_graph(large, "forward.onnx").operators["Cast"] + 1
    )
    rows = np.random.default_rng(0).normal(size=(20, 72)).astype(np.float32)
    found = ExportedGraph(small, "forward")(rows, None, 20).value
    np.testing.assert_allclose(found, rows.astype(np.float64) @ matrix, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("value", [1.0 + 2.0**-12, 7e4, 2.0**-30])
def test_a_constant_with_one_other_number_stays_as_it_is(value: float) -> None:
    array = np.ones(5000, np.float32)
    array[77] = value
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([5000]))
    constant = ir.Value(name="c", const_value=ir.tensor(array, name="c"))
    node = ir.node("Add", [x, constant])
    made = ir.Graph([x], node.outputs, nodes=[node], initializers=[constant], opset_imports={"": 18})
    store_halves(ir.Model(made, ir_version=10))
    assert [each.op_type for each in made] == ["Add"]
    array[77] = 1.0
    constant.const_value = ir.tensor(array, name="c")
    store_halves(ir.Model(made, ir_version=10))
    assert [each.op_type for each in made] == ["Cast", "Add"]
