"""Arrow's streams, held against pyarrow: what it writes is read, and what is written it reads."""

from __future__ import annotations

import io
import struct
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.api.codecs import arrow_read
from service.api.codecs.arrow import Arrow
from service.errors import InvalidArgument, MalformedBody, PushforwardError, WrongShape
from tests.service.api.codecs.tables import FORM, LOC, densities, mutated, read_or_refused, rows_of_three, taken

ARROW = Arrow()
N = 12


def stream(table: pa.Table, rows: int = 5, **options: object) -> bytes:
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=rows)
    return out.getvalue()


def column(kind: str) -> pa.Array:
    numbers = list(range(N))
    made = {
        "text": lambda: pa.array(["x"] * N),
        "large text": lambda: pa.array(["x"] * N, pa.large_string()),
        "view": lambda: pa.array(["longer than twelve bytes"] * N, pa.string_view()),
        "dictionary": lambda: pa.array(["u", "v"] * (N // 2)).dictionary_encode(),
        "list": lambda: pa.array([[1, 2], []] * (N // 2)),
        "list of lists": lambda: pa.array([[[1.5]], []] * (N // 2)),
        "list view": lambda: pa.array([[1]] * N, pa.list_view(pa.int64())),
        "struct": lambda: pa.array([{"q": 1, "r": "a"}] * N),
        "map": lambda: pa.array([[("a", 1)]] * N, pa.map_(pa.string(), pa.int64())),
        "null": lambda: pa.nulls(N),
        "boolean": lambda: pa.array([True] * N),
        "decimal": lambda: pa.array(numbers).cast(pa.decimal128(20)),
        "timestamp": lambda: pa.array(numbers, pa.timestamp("s")),
        "binary": lambda: pa.array([b"ab"] * N, pa.binary(2)),
        "run-end encoded": lambda: pa.RunEndEncodedArray.from_arrays([N], [1.0]),
        "list of texts": lambda: pa.array([["a", "b"]] * N, pa.list_(pa.string(), 2)),
    }
    return made[kind]()


OTHERS = [
    *("text", "large text", "view", "dictionary", "list", "list of lists", "list view", "struct", "map", "null"),
    *("boolean", "decimal", "timestamp", "binary", "run-end encoded", "list of texts"),
]


@given(rows_of_three, st.integers(1, 20))
def test_what_pyarrow_writes_is_read(x, rows):
    table = pa.table({"d": x[:, 2], "a": x[:, 0], "b": x[:, 1]})
    assert taken(ARROW, stream(table, rows), ["a", "b", "d"]).tobytes() == x.tobytes()


@given(arrays.arrays(st.sampled_from(["i1", "u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8"]), 9))
def test_every_dtype_is_rounded_as_from_json(values):
    if values.dtype.kind == "f":
        values = np.nan_to_num(values, nan=1, posinf=1, neginf=1)
    with np.errstate(over="ignore"):
        expected = values.astype(np.float64).astype(np.float32)
        found = taken(ARROW, stream(pa.table({"x0": values})), ["x0"])
    assert found[:, 0].tobytes() == expected.tobytes()


@given(rows_of_three, st.data())
def test_pyarrow_reads_what_is_written(x, data):
    log_prob = data.draw(arrays.arrays(np.float32, len(x), elements=densities))
    quantile = data.draw(arrays.arrays(np.float64, len(x), elements=st.floats(0, 1)))
    answer = {"model": "m", "x": x, "log_prob": log_prob, "quantile": quantile, "anomaly": quantile < 0.5}
    table = pa.ipc.open_stream(ARROW.encode(answer, FORM)).read_all()
    table.validate(full=True)
    assert table.column_names == [*FORM.features, "log_prob", "quantile", "anomaly"]
    assert np.stack([table[name] for name in FORM.features], 1).tobytes() == x.tobytes()
    for name in ("log_prob", "quantile", "anomaly"):
        assert table[name].to_numpy().tobytes() == answer[name].tobytes()


@given(rows_of_three, st.data())
def test_batches_make_the_same_table(x, data):
    cut = data.draw(st.integers(0, len(x)))
    body = ARROW.start({"x": x[:cut]}, FORM, (len(x),)) + ARROW.more({"x": x[cut:]}, FORM) + ARROW.end
    whole = pa.ipc.open_stream(ARROW.encode({"x": x}, FORM)).read_all()
    assert pa.ipc.open_stream(body).read_all().combine_chunks() == whole.combine_chunks()


@given(rows_of_three)
def test_an_answer_is_read_back(x):
    assert taken(ARROW, ARROW.encode({"x": x, "log_prob": x[:, 0]}, FORM), list(FORM.features)).tobytes() == x.tobytes()


@pytest.mark.parametrize("kind", OTHERS)
def test_a_column_of_another_type_is_passed_over_and_named_where_it_is_wanted(kind):
    x = np.arange(N, dtype=np.float32)
    body = stream(pa.table({"x0": x, "other": column(kind), "x1": x + 1}))
    assert (taken(ARROW, body, ["x1", "x0"]) == np.stack([x + 1, x], 1)).all()
    with pytest.raises(InvalidArgument, match=r"expected numbers, and the column 'other' is") as told:
        taken(ARROW, body, ["other"])
    assert (told.value.errors[0].loc, told.value.errors[0].column) == (LOC, 0)


def test_a_union_is_refused_by_name():
    union = pa.UnionArray.from_sparse(pa.array([0] * N, pa.int8()), [pa.array(range(N))])
    with pytest.raises(MalformedBody, match="a union, the column 'u'"):
        taken(ARROW, stream(pa.table({"u": union, "x0": range(N)})), ["x0"])


@pytest.mark.parametrize("nulls", [[3], [0], [11], [6, 7]])
def test_a_null_is_named_by_its_row(nulls):
    values = [None if at in nulls else 1.5 for at in range(N)]
    with pytest.raises(InvalidArgument, match=rf"'x0' is null in row {nulls[0]}$"):
        taken(ARROW, stream(pa.table({"x0": values})), ["x0"])


def test_a_fixed_size_list_is_so_many_columns():
    x = np.arange(24, dtype=np.float32).reshape(N, 2)
    body = stream(pa.table({"x": pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), 2)}))
    assert (taken(ARROW, body, ["x0", "x1"]) == x).all()
    assert (taken(ARROW, body, ["p", "q"]) == x).all()
    listed = pa.array([[1.0, 2.0]] * 4 + [[1.0, None]] + [[1.0, 1.0]] * 7, pa.list_(pa.float32(), 2))
    with pytest.raises(InvalidArgument, match="is null in row 4"):
        taken(ARROW, stream(pa.table({"x": listed})), ["x0", "x1"])


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_buffers_are_refused(compression):
    with pytest.raises(MalformedBody, match="compressed buffers"):
        taken(ARROW, stream(pa.table({"x0": np.zeros(5000)}), 5000, compression=compression), ["x0"])


GOOD = stream(pa.table({"x0": np.arange(N, dtype=np.float32)}))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "does not begin with a schema"),
        (b"x0\n1\n", "no message begins at byte 0|metadata"),
        (b"ARROW1\0\0" + GOOD, "an Arrow file; send the stream"),
        (GOOD[8:], "no message begins at byte 0"),
        (GOOD[:-20], "ends within a message"),
        (GOOD + b"\0", "goes on after its end"),
        (b"\xff\xff\xff\xff\0\0\0\0", "does not begin with a schema"),
        (b"\xff\xff\xff\xff\xff\xff\xff\x7f", "ends within a message"),
    ],
)
def test_a_broken_stream_is_told(body, told):
    with pytest.raises(MalformedBody, match=told):
        taken(ARROW, body, ["x0"])


def test_a_stream_may_end_without_saying_so():
    assert (taken(ARROW, GOOD[:-8], ["x0"]) == taken(ARROW, GOOD, ["x0"])).all()


def test_a_stream_of_no_batches_has_no_rows():
    assert taken(ARROW, stream(pa.table({"x0": np.zeros(0, np.float32)})), ["x0"]).shape == (0, 1)


def test_the_number_of_batches_is_bounded(monkeypatch):
    monkeypatch.setattr(arrow_read, "_MOST_BATCHES", 2)
    with pytest.raises(MalformedBody, match="more than 2 record batches"):
        taken(ARROW, GOOD, ["x0"])


def test_the_number_of_fields_is_bounded(monkeypatch):
    monkeypatch.setattr(arrow_read, "MOST_COLUMNS", 3)
    wide = pa.table({f"x{at}": [1.0] for at in range(4)})
    with pytest.raises(MalformedBody, match="too many columns"):
        taken(ARROW, stream(wide), ["x0"])


def test_fields_that_share_their_bytes_are_refused(monkeypatch):
    wide = stream(pa.table({f"x{at}": [1.0] for at in range(50)}))
    assert len(taken(ARROW, wide, ["x0"])) == 1
    size = struct.unpack_from("<i", wide, 4)[0]
    monkeypatch.setattr(arrow_read, "_LEAST_FIELD_BYTES", size / 49)
    with pytest.raises(MalformedBody, match="share their bytes"):
        taken(ARROW, wide, ["x0"])


def test_buffers_that_share_their_bytes_are_refused():
    body = stream(pa.table({f"x{at}": np.arange(64, dtype=np.int8) for at in range(3)}), 64)
    first, third = struct.pack("<2q", 0, 64), struct.pack("<2q", 128, 64)
    assert body.count(third) == 1
    with pytest.raises(MalformedBody, match="buffers of a record batch share their bytes"):
        taken(ARROW, body.replace(third, struct.pack("<2q", 0, 192)), ["x0", "x1", "x2"])
    assert taken(ARROW, body.replace(third, first), ["x0", "x1", "x2"])[:, 2].tolist() == list(range(64))


def test_more_than_a_few_batches_must_hold_something(monkeypatch):
    monkeypatch.setattr(arrow_read, "_FEW_BATCHES", 8)
    table = pa.table({"x0": np.arange(40, dtype=np.float32)})
    assert len(taken(ARROW, stream(table, 5), ["x0"])) == 40
    with pytest.raises(MalformedBody, match=r"more than \d+ record batches; send fewer and larger ones"):
        taken(ARROW, stream(table, 1), ["x0"])


@pytest.mark.parametrize("columns", [1, 13])
def test_batches_without_rows_are_passed_over(columns):
    schema = pa.schema([(f"x{at}", pa.float32()) for at in range(columns)])
    empty = pa.record_batch([pa.array([], pa.float32())] * columns, schema=schema)
    one = pa.record_batch([pa.array([at], pa.float32()) for at in range(columns)], schema=schema)
    out = io.BytesIO()
    with pa.ipc.new_stream(out, schema) as writer:
        for batch in (empty, one, empty, empty, one):
            writer.write_batch(batch)
    rows = taken(ARROW, out.getvalue(), list(schema.names))
    assert rows.tolist() == [[*map(float, range(columns))]] * 2


def test_a_batch_that_tells_of_more_rows_than_it_has_is_refused():
    length = struct.pack("<q", N)
    body = stream(pa.table({"x0": np.arange(N, dtype=np.float32)}), N)
    assert body.count(length) >= 2  # of the batch, and of its column
    with pytest.raises(MalformedBody, match="shorter than its record batch"):
        taken(ARROW, body.replace(length, struct.pack("<q", 1 << 40)), ["x0"])


def test_no_broken_stream_is_worse_than_refused():
    x = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)
    seeds = [stream(pa.table({"a": x[:, 0], "other": column(kind), "b": x[:, 1]})) for kind in OTHERS]
    seeds.append(
        stream(pa.table({"a": [1.0, None] * 6, "b": pa.FixedSizeListArray.from_arrays(pa.array(x[:8].ravel()), 2)}))
    )
    ends = Counter(read_or_refused(ARROW, body, ["a", "b"]) for body in mutated(seeds, 4000))
    assert {"read", "malformed_body", "invalid_argument", "wrong_shape"} == set(ends)


def test_columns_that_are_there_twice_are_refused():
    table = pa.table([pa.array([1.0]), pa.array([2.0])], names=["x0", "x0"])
    with pytest.raises(InvalidArgument, match="'x0' is there more than once"):
        taken(ARROW, stream(table), ["x0"])


def test_a_missing_column_is_named():
    table = pa.table({"alcohol": [1.0], "ash": [2.0], "hue": [3.0]})
    with pytest.raises(WrongShape, match="did not find 'proline'"):
        taken(ARROW, stream(table), ["ash", "proline", "hue"])
    with pytest.raises(WrongShape, match="expected 2 columns, and found 3"):
        taken(ARROW, stream(table), ["p", "q"])
    assert taken(ARROW, stream(table), ["p", "q", "r"]).tolist() == [[1, 2, 3]]


def test_the_width_of_a_list_is_bounded(monkeypatch):
    monkeypatch.setattr(arrow_read, "MOST_COLUMNS", 40)
    wide = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(50, np.float32)), 50)
    with pytest.raises(MalformedBody, match="too many columns"):
        taken(ARROW, stream(pa.table({"x": wide})), ["x0"])


ONE = stream(pa.table({"x0": np.arange(N, dtype=np.float32)}), N)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ((0, 4 * N), (-64, 4 * N), "reaches beyond its record batch"),
        ((0, 4 * N), (0, 65), "reaches beyond its record batch"),
        ((0, 4 * N), (64, 4 * N), "reaches beyond its record batch"),
        ((0, 4 * N), (0, 4 * N - 1), "shorter than its record batch"),
        ((N, 0), (N - 1, 0), "other rows than its record batch"),
        ((N, 0), (-1, 0), "other rows than its record batch"),
    ],
)
def test_numbers_that_do_not_fit_the_bytes_are_refused(old, new, told):
    packed = struct.pack("<qq", *old)
    assert packed in ONE
    with pytest.raises(MalformedBody, match=told):
        taken(ARROW, ONE.replace(packed, struct.pack("<qq", *new)), ["x0"])


def test_columns_are_nested_only_so_deep():
    kind = pa.int64()
    for _ in range(40):
        kind = pa.list_(kind)
    with pytest.raises(MalformedBody, match="nested too deep"):
        taken(ARROW, stream(pa.table({"deep": pa.nulls(3, kind), "x0": [1.0] * 3})), ["x0"])


def test_a_precision_that_stands_for_nothing_is_refused():
    body = bytearray(stream(pa.table({"a": [1.0, 2.0, 3.0]})))
    size = struct.unpack_from("<i", body, 4)[0]

    def read_with(at: int, number: int) -> str | list[int]:
        changed = bytearray(body)
        struct.pack_into("<h", changed, at, number)
        try:
            columns = arrow_read.read_stream(bytes(changed)).columns
        except PushforwardError as error:
            return error.code
        return [values.itemsize for column in columns for values in column.values]

    places = [at for at in range(8, 8 + size, 2) if read_with(at, 2) == [8] and read_with(at, 1) == [4]]
    assert len(places) == 1
    assert {read_with(places[0], number) for number in (-1, -2, -3, 3, 7)} == {"malformed_body"}


def test_as_many_nulls_as_there_are_rows_are_the_most():
    table = pa.table({"a": pa.array([1.0, None, 3.0])})
    body = stream(table)
    node = struct.pack("<2q", 3, 1)
    assert body.count(node) == 1
    for nulls in (-1, 4, 1 << 40):
        with pytest.raises(MalformedBody, match=f"the column 'a' has {nulls} nulls in 3 rows"):
            taken(ARROW, body.replace(node, struct.pack("<2q", 3, nulls)), ["a"])
