from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.children import memory_file
from service.engine.isolation.shared_batch import BatchLayout, SharedBatch
from service.onnx.signature import Signature
from service.plan import Outputs

shapes = st.lists(st.integers(1, 4), max_size=3).map(tuple)


def both_sides(layout, rows):
    with memory_file("test", layout.size(rows)) as file:
        return SharedBatch(file.fileno()), SharedBatch(file.fileno())


@given(
    inputs=st.lists(shapes, min_size=1, max_size=2),
    outputs=st.lists(shapes, min_size=3, max_size=3),
    dtype=st.sampled_from(["float32", "float64"]),
    rows=st.integers(1, 9),
    room=st.integers(0, 9),
    seed=st.integers(0, 100),
)
def test_what_one_side_writes_the_other_reads_bit_for_bit(inputs, outputs, dtype, rows, room, seed):
    signature = Signature(
        "forward.onnx",
        np.dtype(dtype).name,
        {f"i{at}": shape for at, shape in enumerate(inputs)},
        {f"o{at}": shape for at, shape in enumerate(outputs)},
    )
    layout = BatchLayout(signature)
    server, process = both_sides(layout, rows + room)
    generator = np.random.default_rng(seed)

    def drawn(shape):
        return generator.normal(size=(rows, *shape)).astype(dtype)

    sent = [drawn(shape) for shape in inputs]
    server.write_inputs(layout, sent)
    received = process.inputs(layout, rows)
    assert [array.tobytes() for array in received] == [array.tobytes() for array in sent]
    assert [array.shape for array in received] == [array.shape for array in sent]
    answer = Outputs(*(drawn(shape) for shape in outputs))
    process.write_outputs(layout, answer)
    found = server.read_outputs(layout, rows, finite=True)
    assert [array.tobytes() for array in found.arrays] == [array.tobytes() for array in answer.arrays]
    assert [array.shape for array in process.inputs(layout, rows)] == [array.shape for array in sent]
    assert [array.tobytes() for array in process.inputs(layout, rows)] == [array.tobytes() for array in sent]
    assert found.finite


LAYOUT = BatchLayout(Signature("forward.onnx", "float32", {"x": (2,)}, {"z": (2,), "l": (), "p": ()}))


def test_rows_for_which_there_is_no_room_are_refused():
    server, _ = both_sides(LAYOUT, 4)
    server.write_inputs(LAYOUT, [np.zeros((4, 2), np.float32)])
    with pytest.raises(ValueError, match=r"no room for 5 rows of forward\.onnx"):
        server.write_inputs(LAYOUT, [np.zeros((5, 2), np.float32)])


def test_outputs_stay_when_the_next_batch_is_written():
    server, process = both_sides(LAYOUT, 4)
    ones = [np.ones((4, *shape), np.float32) for shape in ((2,), (), ())]
    process.write_outputs(LAYOUT, Outputs(*ones))
    found = server.read_outputs(LAYOUT, 4, finite=False)
    process.write_outputs(LAYOUT, Outputs(*(2 * one for one in ones)))
    assert all((array == 1).all() for array in found.arrays)


def test_the_server_sees_which_batch_the_process_has_begun_with():
    server, process = both_sides(LAYOUT, 1)
    assert server.begun == 0
    process.begin(7)
    assert server.begun == 7
