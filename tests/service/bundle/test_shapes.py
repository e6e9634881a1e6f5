from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.bundle import shapes
from service.bundle.model_message import ModelMessage
from service.bundle.operators import check_graph
from service.bundle.shapes import check_shapes
from service.bundle.terms import Term
from service.errors import ForbiddenGraph
from tests.service import bundles

ZOO = Path(__file__).parents[3] / "models" / "zoo"


def constant(name: str, value: Any, dtype: Any = np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def graph(*nodes: onnx.NodeProto, width: int = 6, **constants: Any) -> bytes:
    """A graph of x ``[N, width]`` whose last node gives z."""
    tensors = [
        constant(name, value, np.float32 if np.asarray(value).dtype.kind == "f" else np.int64)
        for name, value in constants.items()
    ]
    made = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", width])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        initializer=tensors,
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


node = helper.make_node


def inferred(data: bytes) -> dict[str, Any]:
    return check_shapes(ModelMessage.FromString(data).graph, "forward.onnx")


def sizes_at(shape: Any, rows: int) -> list[int | None]:
    return [None if size is None else size.factor * rows**size.power for size in shape]


def run_whole(data: bytes, rows: int, feeds: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor's shape, as ONNX Runtime computes it."""
    model = onnx.load_from_string(data)
    given = {value.name for value in model.graph.output}
    names = [name for each in model.graph.node for name in each.output if name and name not in given]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted = [output.name for output in session.get_outputs()]
    return {name: np.shape(value) for name, value in zip(wanted, session.run(wanted, feeds), strict=True)}


def assert_right(data: bytes, rows: int, *, whole: bool = False) -> None:
    """Hold the shapes that are inferred against those that ONNX Runtime computes."""
    model = onnx.load_from_string(data)
    feeds = {}
    for value in model.graph.input:
        sizes = [size.dim_value or rows for size in value.type.tensor_type.shape.dim]
        kind = np.float64 if value.type.tensor_type.elem_type == TensorProto.DOUBLE else np.float32
        feeds[value.name] = np.full(sizes, 0.5, kind)
    found, expected = inferred(data), run_whole(data, rows, feeds)
    for name, shape in expected.items():
        told = found[name]
        if told is None:
            assert not whole, name
            continue
        assert len(told) == len(shape), name
        assert all(a in (b, None) for a, b in zip(sizes_at(told, rows), shape, strict=True)), (name, told, shape)
        assert not whole or None not in told, (name, told)


@pytest.mark.parametrize("file", sorted(ZOO.glob("*/1/*.onnx")), ids=lambda file: f"{file.parts[-3]}-{file.stem}")
@pytest.mark.parametrize("rows", [3, 8])
def test_the_shapes_of_the_shipped_graphs_are_all_known(file, rows):
    assert_right(file.read_bytes(), rows, whole=True)


@pytest.mark.parametrize("parts", [bundles.affine(context_width=2), bundles.image(), bundles.square()])
def test_the_shapes_of_small_graphs_are_all_known(parts):
    for name, data in parts.files.items():
        if name.endswith(".onnx"):
            assert_right(data, 5, whole=True)


OPERATIONS = {
    "slices": (
        [
            node("Slice", ["x", "one", "four", "one"], ["a"]),
            node("Slice", ["x", "last", "first", "one", "back"], ["b"]),
            node("Slice", ["x", "three", "minus", "one"], ["c"]),
            node("Slice", ["x", "zero", "most", "zero"], ["d"]),
            node("Concat", ["a", "b", "c", "d"], ["z"], axis=1),
        ],
        {"one": [1], "four": [4], "last": [-1], "first": [-(2**40)], "back": [-1], "three": [3], "minus": [-1]}
        | {"zero": [0], "most": [2**62]},
    ),
    "a shape that is sliced, gathered and put together": (
        [
            node("Shape", ["x"], ["s"]),
            node("Gather", ["s", "zero"], ["n"]),
            node("Unsqueeze", ["n", "axis"], ["rows"]),
            node("Slice", ["s", "from", "to"], ["rest"]),
            node("Concat", ["rows", "two", "half"], ["target"], axis=0),
            node("Div", ["rest", "two"], ["half"]),
            node("Reshape", ["x", "target"], ["parted"]),
            node("Transpose", ["parted"], ["turned"], perm=[0, 2, 1]),
            node("Flatten", ["turned"], ["z"], axis=1),
        ],
        {"zero": 0, "axis": [0], "from": [1], "to": [9], "two": [2]},
    ),
    "torch's expand": (
        [
            node("ConstantOfShape", ["rank"], ["ones"], value=helper.make_tensor("v", TensorProto.INT64, [1], [1])),
            node("Equal", ["target", "minus"], ["is"]),
            node("Where", ["is", "ones", "target"], ["sizes"]),
            node("Expand", ["x", "sizes"], ["z"]),
        ],
        {"rank": [2], "target": [-1, 6], "minus": [-1]},
    ),
    "convolutions": (
        [
            node("Reshape", ["x", "square"], ["image"]),
            node("Conv", ["image", "kernel"], ["a"], pads=[1, 0, 1, 0], strides=[2, 1]),
            node("ConvTranspose", ["a", "back"], ["b"], strides=[2, 2], output_padding=[1, 0]),
            node("Pad", ["b", "pads"], ["c"]),
            node("ReduceMean", ["c", "last"], ["d"], keepdims=0),
            node("ReduceSum", ["d"], ["e"]),
            node("ArgMax", ["d"], ["f"], axis=1, keepdims=0),
            node("Squeeze", ["e"], ["z"]),
        ],
        {
            "square": [-1, 1, 2, 3],
            "kernel": np.ones((4, 1, 3, 2)),
            "back": np.ones((4, 2, 3, 3)),
            "pads": [0, 0, 1, 2, 0, 0, 0, -1],
            "last": [-1],
        },
    ),
    "blocks": (
        [
            node("Reshape", ["x", "four"], ["image"]),
            node("SpaceToDepth", ["image"], ["deep"], blocksize=2),
            node("DepthToSpace", ["deep"], ["flat"], blocksize=2),
            node("Split", ["flat"], ["u", "v", "w"], axis=2, num_outputs=3),
            node("Concat", ["u", "v", "w"], ["z"], axis=1),
        ],
        {"four": [0, 1, 6, 2], "width": 12},
    ),
    "products": (
        [
            node("Gemm", ["x", "weight"], ["a"], transB=1),
            node("MatMul", ["a", "vector"], ["b"]),
            node("Unsqueeze", ["b", "axes"], ["c"]),
            node("GatherElements", ["x", "places"], ["d"], axis=1),
            node("Add", ["x", "c"], ["z"]),
        ],
        {"weight": np.ones((3, 6)), "vector": np.ones(3), "axes": [-1], "places": [[0, 1], [1, 0]]},
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("rows", [2, 7])
def test_the_shapes_of_operations(name, rows):
    nodes, constants = OPERATIONS[name]
    constants = dict(constants)
    width = constants.pop("width", 6)
    if name.startswith("a shape"):  # in the order of their use
        nodes = [*nodes[:4], nodes[5], nodes[4], *nodes[6:]]
    assert_right(graph(*nodes, width=width, **constants), rows)


FROM_ROWS = [
    node("ReduceMax", ["x"], ["most"], keepdims=0),
    node("Cast", ["most"], ["count"], to=TensorProto.INT64),
    node("Reshape", ["count", "flat"], ["many"]),
]


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([*FROM_ROWS, node("Expand", ["x", "many"], ["z"])], {}),
        ([*FROM_ROWS, node("ConstantOfShape", ["many"], ["z"])], {}),
        ([*FROM_ROWS, node("Reshape", ["x", "many"], ["z"])], {}),
        ([*FROM_ROWS, node("Slice", ["x", "flat", "many", "flat"], ["z"])], {}),
        ([*FROM_ROWS, node("Split", ["x", "many"], ["z"], axis=1)], {}),
        ([*FROM_ROWS, node("Concat", ["many"] * 4, ["pads"], axis=0), node("Pad", ["x", "pads"], ["z"])], {}),
        ([*FROM_ROWS, node("Squeeze", ["x", "many"], ["z"])], {}),
        ([*FROM_ROWS, node("Unsqueeze", ["x", "many"], ["z"])], {}),
        ([*FROM_ROWS, node("ReduceSum", ["x", "many"], ["z"])], {}),
        (
            [
                *FROM_ROWS,
                node("Shape", ["x"], ["s"]),
                node("Mul", ["s", "many"], ["target"]),
                node("Expand", ["x", "target"], ["z"]),
            ],
            {},
        ),
        (
            [
                node("Shape", ["x"], ["s"]),
                node("Mul", ["s", "s"], ["target"]),
                node("Expand", ["x", "target"], ["z"]),
            ],
            {},
        ),
        ([node("Transpose", ["x"], ["t"]), node("MatMul", ["x", "t"], ["z"])], {}),
        ([node("ConstantOfShape", ["sizes"], ["z"])], {"sizes": [2**33]}),
        ([node("ConstantOfShape", ["sizes"], ["z"])], {"sizes": [2**16, 2**16]}),
        ([node("Expand", ["one", "sizes"], ["z"])], {"sizes": [2**40], "one": [1.0]}),
        (
            [node("Unsqueeze", ["x", "two"], ["u"]), node("Expand", ["u", "sizes"], ["z"])],
            {"two": [2], "sizes": [1, 1, 2**33]},
        ),
        ([node("Pad", ["x", "pads"], ["z"])], {"pads": [0, 0, 0, 2**35]}),
        ([node("MatMul", ["column", "row"], ["z"])], {"column": np.ones((2**14, 1)), "row": np.ones((1, 2**14))}),
    ],
)
def test_a_shape_that_does_not_fold_or_is_too_large_is_refused(nodes, constants):
    with pytest.raises(ForbiddenGraph, match=r"forward\.onnx: a node \w+ (takes|makes)"):
        check_graph(graph(*nodes, **({"flat": [-1]} | constants)), "forward.onnx")


def test_doublings_are_refused_where_they_pass_the_bound():
    doublings = [node("Concat", [f"d{at}", f"d{at}"], [f"d{at + 1}"], axis=1) for at in range(40)]
    start = node("Identity", ["x"], ["d0"])
    with pytest.raises(ForbiddenGraph, match="values for each row"):
        check_graph(graph(start, *doublings, node("Identity", ["d40"], ["z"])), "forward.onnx")


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Concat", [], ["z"], axis=1)],
        [node("Transpose", ["x"], ["z"], perm=[5, 7])],
        [node("Gather", ["x", "flat"], ["z"], axis=-9)],
        [node("Split", ["x"], ["z"], num_outputs=0)],
        [node("Conv", ["image", "image"], ["z"], strides=[1], pads=[1])],
        [node("Reshape", ["x", "many"], ["z"])],
        [node("Gemm", ["x"], ["z"])],
        [node("Squeeze", ["x", "far"], ["z"])],
        [node("Where", ["flat", "many", "far"], ["z"])],
        [node("Mod", ["flat", "zero"], ["z"]), node("Div", ["flat", "zero"], ["y"])],
        [node("Slice", ["many", "zero", "far", "zero", "zero"], ["z"])],
        [node("Pad", ["x", "flat"], ["z"])],
        [node("DepthToSpace", ["image"], ["z"], blocksize=0)],
        [node("Unsqueeze", ["x", "places"], ["z"])],
        [
            node("Mul", ["huge", "huge"], ["m0"]),
            *(node("Mul", [f"m{at}", f"m{at}"], [f"m{at + 1}"]) for at in range(60)),
        ],
    ],
)
def test_a_graph_that_makes_no_sense_is_passed_on_or_refused_in_words(nodes):
    """ONNX Runtime refuses what is left of them."""
    constants = {
        "flat": [-1],
        "many": [0, 1, 2, 3],
        "far": [99],
        "zero": [0],
        "huge": [2**61],
        "places": list(range(200)),
        "image": np.ones((1, 1, 2, 2)),
    }
    data = graph(*nodes, node("Identity", ["x"], ["end"]), **constants)
    with suppress(ForbiddenGraph):
        check_graph(data, "forward.onnx")


def test_constants_are_bounded(monkeypatch):
    data = graph(node("Identity", ["x"], ["z"]), weight=np.ones(1000))
    check_graph(data, "forward.onnx")
    monkeypatch.setattr(shapes, "MAX_CONSTANT_BYTES", 4000)
    with pytest.raises(ForbiddenGraph, match="bytes of constants"):
        check_graph(data, "forward.onnx")


def test_no_name_stands_for_two_tensors():
    data = graph(node("Identity", ["x"], ["z"]), node("Neg", ["x"], ["z"]))
    with pytest.raises(ForbiddenGraph, match="one name to two tensors"):
        check_graph(data, "forward.onnx")


ROWS = node("Shape", ["x"], ["rows"], start=0, end=1)


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(
            [
                node("Sub", ["none", "rows"], ["negative"]),
                node("Equal", ["negative", "minus"], ["is"]),
                node("Where", ["is", "huge", "one"], ["count"]),
            ],
            id="huge for five rows alone",
        ),
        pytest.param(
            [
                node("Mul", ["rows", "none"], ["zero"]),
                node("Equal", ["zero", "none"], ["is"]),
                node("Where", ["is", "huge", "one"], ["count"]),
            ],
            id="a zero that is made of rows",
        ),
        *(
            pytest.param(
                [
                    node("Cast", ["rows"], ["narrow"], to=kind),
                    node("Cast", ["narrow"], ["wide"], to=TensorProto.INT64),
                    node("Sub", ["rows", "wide"], ["lost"]),
                    node("Mul", ["lost", "huge"], ["far"]),
                    node("Add", ["far", "one"], ["count"]),
                ],
                id=f"what a {name} cannot hold",
            )
            for name, kind in TensorProto.DataType.items()
            if name in ("BOOL", "INT8", "UINT8", "INT16", "INT32", "FLOAT16", "FLOAT")
        ),
        pytest.param(
            [
                node("Mul", ["rows", "half"], ["wrapped"]),
                node("Div", ["wrapped", "half"], ["less"]),
                node("Sub", ["rows", "less"], ["lost"]),
                node("Mul", ["lost", "huge"], ["far"]),
                node("Add", ["far", "one"], ["count"]),
            ],
            id="an integer that wraps round",
        ),
    ],
)
def test_no_arithmetic_hides_a_size_that_only_some_numbers_of_rows_have(count):
    """The numbers that are followed are those that ONNX Runtime computes, for any number of rows."""
    made = graph(
        ROWS,
        *count,
        node("Expand", ["fill", "count"], ["z"]),
        none=[0],
        minus=[-5],
        one=[1],
        huge=[2**40],
        half=[2**61],
        fill=[1.0],
    )
    with pytest.raises(ForbiddenGraph, match=r"Expand (takes sizes that are computed from rows|makes)"):
        check_graph(made, "forward.onnx")


def with_two_attributes() -> bytes:
    twice = node("Constant", [], ["sizes"], value_ints=[1])
    twice.attribute.insert(0, helper.make_attribute("value_ints", [2**40]))
    return graph(twice, node("Expand", ["fill", "sizes"], ["z"]), fill=[1.0])


def with_two_constants() -> bytes:
    model = onnx.load_from_string(graph(node("Expand", ["fill", "sizes"], ["z"]), fill=[1.0], sizes=[1]))
    model.graph.initializer.append(constant("sizes", [2**40]))
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        pytest.param(with_two_attributes(), "two attributes of one name", id="attributes"),
        pytest.param(with_two_constants(), "one name to two constants", id="constants"),
        pytest.param(graph(node("Neg", ["x"], ["x"])), "one name to two tensors", id="an input"),
        pytest.param(graph(node("Neg", ["x"], ["w"]), w=[1.0]), "one name to two tensors", id="a constant"),
        pytest.param(
            graph(node("Neg", ["y"], ["z"]), node("Neg", ["x"], ["y"])), "comes before the node", id="the order"
        ),
        pytest.param(graph(node("Neg", ["y"], ["z"])), "comes before the node", id="an input that nothing makes"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(data, why):
    with pytest.raises(ForbiddenGraph, match=why):
        check_graph(data, "forward.onnx")


@pytest.mark.parametrize(
    "nodes",
    [
        [ROWS, node("Slice", ["x", "one", "rows"], ["z"])],
        [node("Concat", ["x", "some"], ["z"], axis=0)],
        [node("Reshape", ["x", "four"], ["z"])],
        [node("Add", ["two", "five"], ["z"])],
    ],
)
def test_a_shape_that_cannot_be_told_is_refused(nodes):
    """It may grow and shrink with the number of rows, so that no trial shows the most that it takes."""
    constants = {"one": [1], "some": np.ones((3, 6)), "four": [-1, 4], "five": np.ones((5, 6)), "two": np.ones((2, 6))}
    with pytest.raises(ForbiddenGraph, match="whose shape cannot be told"):
        check_graph(graph(*nodes, **constants), "forward.onnx")


def test_an_input_with_a_default_is_what_the_caller_gives():
    data = graph(node("Identity", ["x"], ["z"]), x=np.ones((5, 5)))
    assert inferred(data)["z"] == (Term(1, 1), Term(6))


@pytest.mark.parametrize("grows", [True, False])
def test_a_loop_keeps_the_shapes_that_it_carries(grows):
    carried = helper.make_tensor_value_info("in", TensorProto.FLOAT, None)
    body = helper.make_graph(
        [
            node("Concat", ["in", "in"], ["out"], axis=1) if grows else node("Add", ["in", "x"], ["out"]),
            node("Identity", ["going"], ["on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            carried,
        ],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), helper.make_tensor_value_info("out", 1, None)],
    )
    model = onnx.load_from_string(graph(node("Loop", ["passes", "go", "x"], ["z"], body=body), passes=3))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "go"))
    if grows:
        with pytest.raises(ForbiddenGraph, match="need not keep its shape"):
            check_graph(model.SerializeToString(), "forward.onnx")
    else:
        assert check_graph(model.SerializeToString(), "forward.onnx").passes == (3,)
        assert inferred(model.SerializeToString())["z"] == (Term(1, 1), Term(6))
