from __future__ import annotations

import io
import struct
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.api.codecs.codec import Form
from service.api.codecs.npy import Npy
from service.errors import InvalidArgument, MalformedBody, NotAcceptable
from tests.service.api.codecs.tables import FORM, mutated, read_or_refused

NPY = Npy()


def file(array: np.ndarray, version: tuple[int, int] | None = (1, 0), allow_pickle: bool = False) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, array, version, allow_pickle=allow_pickle)
    return out.getvalue()


kinds = st.sampled_from(["<f4", ">f4", "<f8", ">f8", "<f2", "<i8", ">i4", "<u8", "u1", "i2"])


@given(
    st.data(), kinds, arrays.array_shapes(max_dims=4), st.sampled_from("CF"), st.sampled_from([(1, 0), (2, 0), (3, 0)])
)
def test_every_plain_file_is_read(data, kind, shape, order, version):
    array = data.draw(arrays.arrays(kind, shape)).copy(order)
    read = NPY.decode(file(array, version), "z")["z"]
    assert read.shape == array.shape
    assert read.astype(array.dtype).tobytes() == array.tobytes()


def test_float32_in_c_order_is_not_copied():
    body = file(np.arange(6, dtype=np.float32).reshape(2, 3))
    assert np.shares_memory(NPY.decode(body, "x")["x"], np.frombuffer(body, np.uint8))


@given(arrays.arrays(np.float32, arrays.array_shapes(min_dims=1, max_dims=4)))
def test_the_main_array_comes_back_bit_for_bit(array):
    answer = {"model": "m", "log_prob": np.zeros(len(array), np.float32), "x": array}
    back = np.load(io.BytesIO(NPY.encode(answer, Form("x", []))))
    assert (back.shape, back.dtype, back.tobytes()) == (array.shape, array.dtype, array.tobytes())


@given(arrays.arrays(np.float32, (7, 2)), st.integers(1, 6))
def test_pieces_make_the_same_file(array, cut):
    answer = {"x": array}
    start = NPY.start({"x": array[:cut]}, FORM, (7,))
    assert start + NPY.more({"x": array[cut:]}, FORM) + NPY.end == NPY.encode(answer, FORM)


def test_the_header_has_the_axes_of_the_whole():
    start = NPY.start({"x": np.zeros((5, 2), np.float32)}, FORM, (3, 10))
    with pytest.raises(ValueError, match=r"cannot reshape|EOF"):
        np.load(io.BytesIO(start))
    assert np.load(io.BytesIO(start + bytes(25 * 2 * 4))).shape == (3, 10, 2)


@pytest.mark.parametrize("kind", ["c8", "?", "S3", "U2", "M8[s]", "<f4,<i2", "V4", "<f16"])
def test_what_is_no_real_number_is_refused(kind):
    with pytest.raises(InvalidArgument, match="x: expected floats or integers") as told:
        NPY.decode(file(np.zeros((2, 2), kind)), "x")
    assert told.value.errors[0].loc == ("body", "x")


def test_objects_are_never_read():
    class Loud:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    with pytest.raises(MalformedBody, match="objects, which are never read"):
        NPY.decode(file(np.array([Loud()], object), allow_pickle=True), "x")


GOOD = file(np.zeros((3, 2), np.float32))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "does not begin with"),
        (b"PK\x03\x04", "does not begin with"),
        (GOOD[:8], "header cannot be read"),
        (GOOD[:-1], "24 bytes of numbers, and 23 follow"),
        (GOOD + b"\0", "24 bytes of numbers, and 25 follow"),
        (GOOD.replace(b"(3, 2)", b"(-3,2)"), "an axis of length -3"),
        (GOOD.replace(b"(3, 2), }", b"(-3,-2),}"), "an axis of length -3"),
        (GOOD.replace(b"(3, 2), }", b"(-1,-6),}"), "an axis of length -1"),
        (GOOD.replace(b"(3, 2)", b"(3,2.)"), "header"),
        (GOOD.replace(b"(3, 2)", b"(9**9)"), "header"),
        (GOOD.replace(b"(3, 2)", b"True, "), "header"),
        (GOOD.replace(b"NUMPY\x01", b"NUMPY\x09"), "version 9.0"),
        (GOOD[:8] + b"\xff\xff" + GOOD[10:], "header cannot be read"),
        (b"\x93NUMPY\x01\x00\xe8\x03" + b"(" * 1000, "header cannot be read"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b" " * 2000, "header cannot be read"),
    ],
)
def test_a_broken_file_is_told(body, told):
    with pytest.raises(MalformedBody, match=told):
        NPY.decode(body, "x")


VALUES = ["True", "False", "None", "1.0", "-1", "'1'", "1j", "b'1'", "(1,)", "[1]", "1", "6"]


@pytest.mark.parametrize("item", VALUES)
@pytest.mark.parametrize("name", ["descr", "fortran_order", "shape", "axis", "another"])
def test_each_item_of_a_header_has_its_exact_type(name, item):
    told = {"descr": "'<f4'", "fortran_order": "False", "shape": "(6,)"}
    if name == "axis":
        told["shape"] = f"({item}, 6)"
    else:
        told[name] = item
    good = {"fortran_order": ("True", "False"), "axis": ("1",)}.get(name, ())
    header = "{" + ", ".join(f"'{key}': {value}" for key, value in told.items()) + "}\n"
    body = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(24)
    if item in good:
        assert NPY.decode(body, "x")["x"].size == 6
        return
    with pytest.raises(MalformedBody):
        NPY.decode(body, "x")


def test_a_shape_that_no_array_has_is_told():
    many = file(np.zeros((0,) + (1,) * 40, np.float32)).replace(b"1, " * 38, b"1,1" * 38)
    with pytest.raises(MalformedBody):
        NPY.decode(many, "x")
    far = GOOD[:-24].replace(b"(3, 2), }" + b" " * 20, b"(0, 9223372036854775807, 9), }"[:29])
    with pytest.raises(MalformedBody):
        NPY.decode(far, "x")


def test_no_broken_file_is_worse_than_refused():
    seeds = [file(np.ones((4, 2), kind).copy(order)) for kind in ("<f4", ">i2", "?", "<f8") for order in "CF"]
    ends = Counter(read_or_refused(NPY, body, []) for body in mutated(seeds, 3000, first=130))
    assert {"read", "malformed_body", "invalid_argument"} == set(ends)


def test_an_answer_without_its_main_array_is_not_acceptable():
    with pytest.raises(NotAcceptable):
        NPY.encode({"steps": []}, FORM)
