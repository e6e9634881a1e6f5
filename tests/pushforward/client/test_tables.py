"""Rows of other libraries: names are matched or refused, and a cell without a value is never a number."""

from __future__ import annotations

import builtins
from decimal import Decimal
from typing import Any, NamedTuple

import httpx
import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pytest

from pushforward.client.arrays import to_float64, to_floats
from pushforward.client.errors import InvalidInput, InvalidRequest

AB = np.array([[1, 2], [3, 4]], np.float32)
FRAME = pd.DataFrame(AB, columns=["a", "b"])
TURNED = FRAME[["b", "a"]]
CONDITIONS = pd.DataFrame({"d": [7, 8], "c": [5, 6]})


class Server:
    """A server of three flows: with names, without, and with a context; it remembers what it is asked."""

    def __init__(self) -> None:
        self.described: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.features = {"named": ["a", "b"], "plain": [], "given": ["a", "b"]}
        self.version = 1

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if request.method == "GET" and path.startswith("/models"):
            self.described.append(path)
            return httpx.Response(200, json=self.describe(path.split("/")[2]))
        body = orjson.loads(request.content) if request.content else dict(request.url.params)
        self.bodies.append(body)
        if request.headers.get("accept") == "image/png":
            return httpx.Response(200, content=b"\x89PNG")
        rows = len(body.get("x", body.get("z", body.get("points", [0]))))
        model, version = body["model"], body.get("version", self.version)
        if len(self.features[model]) > 2 and len(body["x"][0]) == 2:
            return httpx.Response(422, json={"code": "wrong_shape", "detail": "x has 2 columns"})
        column, pair = [0.0] * rows, [[0.0, 0.0]] * rows
        answer = {"log_prob": column, "log_abs_det_jacobian": column, "x": pair, "z": pair, "round_trip_error": column}
        answer |= {"t": column, "seed": 1, "offset": 0, "steps": [], "weights": column, "log_weights": column}
        answer |= {"ess": 1.0, "ess_share": 1.0, "pareto_k": None, "verdict": "good"}
        answer |= {"log_evidence": 0.0, "log_evidence_se": 0.0}
        return httpx.Response(200, json={"model": model, "version": int(version), **answer})

    def describe(self, name: str) -> dict[str, Any]:
        context = ["c", "d"] if name == "given" else []
        return {
            "name": name,
            "version": self.version,
            "versions": [self.version],
            "state": "ready",
            "default": False,
            "event_shape": [max(2, len(self.features[name]))],
            "features": [{"name": feature} for feature in self.features[name]],
            "context_width": len(context),
            "context_features": [{"name": feature} for feature in context],
        }


@pytest.fixture
def served() -> Server:
    return Server()


class Polars:
    """A frame as polars offers it: names, columns by name, nulls that a column counts."""

    class Series:
        def __init__(self, cells: list[Any]) -> None:
            self.cells = cells

        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            return np.array([np.nan if cell is None else cell for cell in self.cells], dtype)

        def null_count(self) -> int:
            return self.cells.count(None)

        def is_null(self) -> list[bool]:
            return [cell is None for cell in self.cells]

    def __init__(self, **columns: list[Any]) -> None:
        self.held = columns
        self.columns = list(columns)

    def __getitem__(self, name: str) -> Series:
        return self.Series(self.held[name])

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.stack([np.asarray(self[name]) for name in self.columns], -1)

    def null_count(self) -> Polars:
        return self


class Stream:
    """A table that offers itself by one protocol alone."""

    def __init__(self, table: pa.Table, protocol: str) -> None:
        setattr(type(self), protocol, lambda self, *given, **more: getattr(table, protocol)(*given, **more))

    @classmethod
    def of(cls, table: pa.Table, protocol: str) -> Stream:
        return type("Offered", (cls,), {})(table, protocol)


class Labelled:
    """An array as xarray labels it."""

    def __init__(self, values: np.ndarray, **labels: list[Any] | None) -> None:
        self.values, self.dims = values, tuple(labels)
        self.coords = {dim: np.array(names) for dim, names in labels.items() if names is not None}

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.array(self.values, dtype)


class Row(NamedTuple):
    b: float
    a: float


class SqlRow:
    """A row as sqlite3 has it: a sequence with keys."""

    def keys(self) -> list[str]:
        return ["b", "a"]

    def __getitem__(self, key: str | int) -> float:
        return {"b": 2.0, "a": 1.0, 0: 2.0, 1: 1.0}[key]

    def __len__(self) -> int:
        return 2


ARROW = pa.table({"b": [2.0, 4.0], "a": [1.0, 3.0]})
TURNED_TABLES = {
    "pandas": TURNED,
    "pandas, other columns": TURNED.assign(note=["q", "r"], c=[0, 0]),
    "pandas, spaces": TURNED.rename(columns={"a": " a", "b": "b "}),
    "pandas, nullable": TURNED.astype("Int64"),
    "pandas, objects": TURNED.astype(object),
    "pandas, decimals": TURNED.map(lambda x: Decimal(int(x))),
    "pandas, rows": [TURNED.iloc[0], TURNED.iloc[1]],
    "pandas, tuples": list(TURNED.itertuples()),
    "pandas, records": TURNED.to_records(),
    "pandas, a list of frames": [TURNED.iloc[[0]], TURNED.iloc[[1]]],
    "dicts": TURNED.to_dict("records"),
    "dict": {"b": [2, 4], "a": [1, 3]},
    "named tuples": (Row(2, 1), Row(4, 3)),
    "arrow": ARROW,
    "arrow batch": ARROW.to_batches()[0],
    "arrow reader": None,
    "arrow stream": Stream.of(ARROW, "__arrow_c_stream__"),
    "interchange": Stream.of(ARROW, "__dataframe__"),
    "polars": Polars(b=[2, 4], a=[1, 3]),
    "structured": np.array([(2, 1), (4, 3)], [("b", "f4"), ("a", "i8")]),
    "xarray": Labelled(AB[:, ::-1], row=None, feature=["b", "a"]),
    "xarray, named rows": Labelled(AB[:, ::-1], row=["q", "r"], feature=["b", "a"]),
}


@pytest.mark.parametrize("kind", TURNED_TABLES)
def test_columns_are_matched_by_name(connect, served, kind):
    table = ARROW.to_reader() if kind == "arrow reader" else TURNED_TABLES[kind]
    connect(served).log_prob(table, model="named")
    assert np.reshape(served.bodies[0]["x"], (2, 2)).tolist() == AB.tolist()


@pytest.mark.parametrize("row", [TURNED.iloc[0], {"b": 2, "a": 1}, Row(2, 1), SqlRow(), TURNED_TABLES["structured"][0]])
def test_one_row_is_matched_by_name(connect, served, row):
    connect(served).log_prob(row, model="named")
    assert served.bodies[0]["x"] == [1, 2]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (FRAME[["a"]], "no column 'b'; it has 'a'"),
        (FRAME.rename(columns={"a": "A"}), "no column 'a'; it has 'A', 'b'"),
        (FRAME.set_index("a"), "no column 'a'"),
        (FRAME[["a", "b", "b"]], "the column 'b' more than once"),
        (FRAME.T, "its rows are called so: transpose it"),
        (Labelled(AB, feature=["a", "b"], row=None), "its rows are called so: transpose it"),
        (pd.DataFrame(AB)[[1, 0]], "no column 'a', 'b'; it has '1', '0'"),
        (pd.Series([1.0, 2.0], ["u", "v"]), "it has 'u', 'v'"),
        (Labelled(AB, row=None, feature=["u", "v"]), "it has 'u', 'v'"),
        ({"a": [1, 2], "b": [1]}, "different lengths"),
        (FRAME.assign(b=["2", "x"]), "row 0 .*, column 'b': the cell holds str"),
        (FRAME.assign(b=pd.to_datetime(["2020", "2021"])), "column 'b' must hold real numbers, and holds datetime64"),
        (FRAME.assign(b=[[1], [2]]), "column 'b': the cell holds list"),
        ({"a": AB, "b": AB}, "a number a row"),
    ],
)
def test_columns_that_are_not_the_flows_are_refused(connect, served, table, words):
    with pytest.raises(InvalidInput, match=words):
        connect(served).log_prob(table, model="named")
    assert served.bodies == []


@pytest.mark.parametrize("values", [AB, AB.tolist(), pd.DataFrame(AB), Labelled(AB, row=None, feature=None)])
def test_rows_without_names_are_taken_as_they_stand(connect, served, values):
    connect(served).log_prob(values, model="named")
    assert served.bodies[0]["x"] == AB.tolist()


def test_a_plain_array_asks_for_no_names(connect, served):
    client = connect(served)
    client.log_prob(AB, model="named")
    client.log_prob([[1, 2], (3, np.float32(4))], model="named")
    client.sample(model="given", context=[5, 6])
    assert served.described == []


def test_a_flow_without_names_is_asked_as_csv_would_ask_it(connect, served):
    client = connect(served)
    client.log_prob(TURNED, model="plain")
    client.log_prob(pd.DataFrame(AB[:, ::-1], columns=["x1", "x0"]), model="plain")
    client.log_prob(Labelled(AB, row=None, feature=["u", "v"]), model="plain")
    assert [body["x"] for body in served.bodies] == [AB[:, ::-1].tolist(), AB.tolist(), AB.tolist()]
    for table in (FRAME.set_axis(["X1", "X0"], axis=1), FRAME.set_axis(["x0", "u"], axis=1), {"u": 1, "v": 2}):
        with pytest.raises(InvalidInput, match="no column"):
            client.log_prob(table, model="plain")
    with pytest.raises(InvalidInput, match="no column 'x0', 'x1'"):
        client.log_prob(pd.DataFrame(AB)[[1, 0]], model="plain")


@pytest.mark.parametrize(
    ("verb", "arguments", "sent"),
    [
        ("log_prob", {"x": TURNED}, {"x": AB}),
        ("log_prob", {"x": TURNED, "returns": ["z"]}, {"x": AB}),
        ("encode", {"x": TURNED}, {"x": AB}),
        ("decode", {"z": TURNED.set_axis(["z1", "z0"], axis=1)}, {"z": AB}),
        ("interpolate", {"points": TURNED}, {"points": AB}),
        ("interpolate", {"points": TURNED.set_axis(["z1", "z0"], axis=1), "space": "z"}, {"points": AB}),
        ("edit", {"x": TURNED, "direction": "right", "strength": [1]}, {"x": AB}),
        ("edit", {"x": AB, "direction": TURNED, "strength": [1]}, {"direction": {"from": [1, 2], "to": [3, 4]}}),
        ("edit", {"x": AB, "direction": {"z1": 2, "z0": 1}, "strength": [1]}, {"direction": [1, 2]}),
        ("trace", {"x": TURNED}, {"x": AB}),
        ("trace", {"z": TURNED.set_axis(["z1", "z0"], axis=1)}, {"z": AB}),
        ("weights", {"log_target": pd.Series([0.5, 1.5]), "x": TURNED}, {"x": AB, "log_target": [0.5, 1.5]}),
        ("picture", {"verb": "logprob", "x": TURNED}, {"x": AB}),
        ("picture", {"verb": "edit", "x": TURNED, "direction": TURNED, "strength": [1]}, {"x": AB}),
        ("picture", {"verb": "interpolate", "points": TURNED}, {"points": AB}),
    ],
)
def test_every_call_matches_names(connect, served, verb, arguments, sent):
    arguments = dict(arguments)
    positional = [arguments.pop("verb")] if verb == "picture" else []
    getattr(connect(served), verb)(*positional, **arguments, model="named")
    for name, rows in sent.items():
        assert served.bodies[0][name] == (rows.tolist() if isinstance(rows, np.ndarray) else rows)


@pytest.mark.parametrize("verb", ["log_prob", "encode", "interpolate", "trace", "edit", "picture"])
def test_a_table_gives_its_context_too(connect, served, verb):
    table = pd.concat([CONDITIONS, TURNED], axis=1)
    more = {"edit": {"direction": "right", "strength": [1]}}.get(verb, {})
    first = ["logprob"] if verb == "picture" else []
    key = "points" if verb == "interpolate" else "x"
    getattr(connect(served), verb)(*first, **{key: table}, **more, model="given")
    assert served.bodies[0][key] == AB.tolist()
    assert served.bodies[0]["context"] == [[5, 7], [6, 8]]


def test_a_context_of_its_own_is_matched(connect, served):
    client = connect(served)
    client.log_prob(AB, context=CONDITIONS, model="given")
    client.log_prob(TURNED, context=CONDITIONS.iloc[0], model="given")
    client.sample(2, context=CONDITIONS.iloc[0], model="given")
    assert served.bodies[0]["context"] == [[5, 7], [6, 8]]
    assert served.bodies[1]["context"] == [5, 7]
    assert served.bodies[2]["context"] == "5.0,7.0"
    assert served.described == ["/models/given"]
    with pytest.raises(InvalidInput, match="context: the table has no column 'c'"):
        client.log_prob(AB, context=CONDITIONS[["d"]], model="given")


def test_the_context_of_streamed_samples_is_matched(served):
    import pushforward

    with pushforward.Client(transport=httpx.MockTransport(served)) as client:
        next(iter(client.stream_sample(1, context={"d": 7, "c": 5}, model="given")))
    assert served.bodies[0]["context"] == "5.0,7.0"
    assert served.bodies[0]["version"] == "1"


def test_names_are_learnt_once_for_each_flow_and_version(connect, served):
    client = connect(served)
    for _ in range(3):
        client.log_prob(TURNED, model="named")
    client.log_prob(TURNED, model="named", version=1)
    client.log_prob(TURNED, model="given", version=1, context=[1, 2])
    assert served.described == ["/models/named", "/models/given/versions/1"]


def test_a_newer_version_with_other_columns_is_not_asked_by_the_names_of_the_old_one(connect, served):
    client = connect(served)
    client.log_prob(TURNED, model="named")
    served.version, served.features["named"] = 2, ["b", "a"]
    answer = client.log_prob(TURNED, model="named", returns=[])
    assert answer.version == 2
    assert served.bodies[-1]["x"] == AB[:, ::-1].tolist()
    served.version, served.features["named"] = 3, ["b", "a", "c"]
    client.log_prob(TURNED.assign(c=[9, 9]), model="named")
    assert served.bodies[-1]["x"] == [[2, 1, 9], [4, 3, 9]]
    assert served.described == ["/models/named"] * 3


def test_a_refusal_that_new_names_do_not_cure_stays(connect, served):
    client = connect(served)
    client.log_prob(TURNED, model="named")
    with pytest.raises(InvalidInput, match="no column 'b'"):
        client.log_prob(FRAME[["a"]], model="named")
    served.features["plain"] = ["a", "b", "c"]
    with pytest.raises(InvalidRequest, match="2 columns"):
        client.log_prob(AB, model="plain")


@pytest.mark.parametrize("verb", ["log_prob", "weights"])
def test_rows_that_are_labelled_in_another_order_are_refused(connect, served, verb):
    client = connect(served)
    if verb == "log_prob":
        with pytest.raises(InvalidInput, match=r"context has the row labels of x in another order: row 0 is 0 in x"):
            client.log_prob(TURNED, context=CONDITIONS.iloc[::-1], model="given")
        client.log_prob(TURNED, context=CONDITIONS.iloc[::-1].to_numpy(), model="given")
    else:
        with pytest.raises(InvalidInput, match="log_target has the row labels of x in another order"):
            client.weights(pd.Series([0.0, 1.0], index=[1, 0]), TURNED, model="named")
        client.weights(pd.Series([0.0, 1.0], index=[10, 11]), TURNED, model="named")


class Masked:
    """An array of a library with masks of its own."""

    def __init__(self, cells: np.ndarray, mask: np.ndarray) -> None:
        self.cells, self.mask = cells, mask

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.array(self.cells, dtype)


MASK = np.array([[False, False], [False, True]])
EMPTY_CELLS = {
    "masked": np.ma.masked_array(AB, MASK),
    "masked rows": [np.ma.masked_array(row, mask) for row, mask in zip(AB, MASK, strict=True)],
    "masked constant": [[1, 2], [3, np.ma.masked]],
    "masked by another library": Masked(AB, MASK),
    "masked, structured": np.ma.array([(1, 2), (3, 4)], [("a", "f4"), ("b", "f4")], mask=[(0, 0), (0, 1)]),
    "None": [[1, 2], [3, None]],
    "pandas NA": [[1, 2], [3, pd.NA]],
    "pandas NaN": FRAME.assign(b=[2, np.nan]),
    "pandas Int64": FRAME.assign(b=pd.array([2, None], "Int64")),
    "pandas boolean": FRAME.assign(b=pd.array([True, None], "boolean")),
    "pandas objects": FRAME.assign(b=np.array([2, None], object)),
    "pandas arrow": FRAME.assign(b=pd.array([2, None], "int64[pyarrow]")),
    "arrow": pa.table({"b": [2, None], "a": [1, 3]}),
    "arrow booleans": pa.table({"b": [True, None], "a": [1, 3]}),
    "arrow batch": pa.record_batch({"b": [2, None], "a": [1, 3]}),
    "polars": Polars(b=[2, None], a=[1, 3]),
    "dict": {"a": np.ma.masked_array([1, 3]), "b": np.ma.masked_array([2, 4], [0, 1])},
    "dicts": [{"a": 1, "b": 2}, {"a": 3, "b": None}],
}


@pytest.mark.parametrize("kind", EMPTY_CELLS)
def test_a_cell_without_a_value_is_named_by_row_and_column(connect, served, kind):
    with pytest.raises(InvalidInput, match=r"masked or null|nan is not finite") as caught:
        connect(served).log_prob(EMPTY_CELLS[kind], model="named")
    assert [(fault.row, fault.column) for fault in caught.value.errors] == [(1, 1)]
    assert served.bodies == []


HIDDEN = np.ma.masked_array([1.0, 2.0], [False, True])


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("context", lambda client: client.sample(context=HIDDEN, model="given")),
        ("strength", lambda client: client.edit(AB, "right", HIDDEN, model="named")),
        ("direction", lambda client: client.edit(AB, HIDDEN, [1], model="named")),
        ("log_target", lambda client: client.weights(HIDDEN, AB, model="named")),
        ("values", lambda client: client.importance(lambda x: np.zeros(len(x)), 1, model="named").mean(HIDDEN)),
    ],
)
def test_no_argument_lets_a_masked_cell_through(connect, served, name, call):
    with pytest.raises(InvalidInput, match=rf"{name}.*masked or null"):
        call(connect(served))


def test_a_mask_that_hides_nothing_is_no_fault():
    assert to_floats(np.ma.masked_array(AB), "x").tolist() == AB.tolist()
    assert to_floats([np.ma.masked_array([1.0]), [2.0]], "x").tolist() == [[1], [2]]
    assert to_float64(np.ma.masked_array([-np.inf]), "log_target").tolist() == [-np.inf]


@pytest.mark.parametrize("value", [1.0, np.float32(1), np.array(1.0), 3])
def test_a_number_alone_is_no_row(connect, served, value):
    client = connect(served)
    for ask in (client.log_prob, client.encode, client.decode, client.interpolate, client.trace):
        with pytest.raises(InvalidInput, match="must be rows"):
            ask(value, model="plain")


def test_a_number_alone_is_a_context_of_one_column(connect, served):
    connect(served).log_prob(AB, context=0.5, model="plain")
    assert served.bodies[0]["context"] == [0.5]


def test_what_a_library_cannot_give_is_refused(connect, served):
    class Plan:
        columns = ("a", "b")

        def collect(self) -> None:
            raise AssertionError

    class Remote:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            raise TypeError("the rows are on another device")

    client = connect(served)
    with pytest.raises(InvalidInput, match="a Plan holds no rows before its collect"):
        client.log_prob(Plan(), model="named")
    with pytest.raises(InvalidInput, match="Remote: the rows are on another device"):
        client.log_prob(Remote(), model="named")
    with pytest.raises(InvalidInput, match="cannot be sent"):
        client.picture("edit", x=AB, direction="right", strength=TURNED, model="named")


def test_without_pyarrow_a_stream_is_refused(connect, served, monkeypatch):
    imported = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "pyarrow":
            raise ImportError(name)
        return imported(name, *rest)

    table = Stream.of(ARROW, "__arrow_c_stream__")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InvalidInput, match="pyarrow is needed"):
        connect(served).log_prob(table, model="named")


def test_columns_of_something_else_are_not_taken_in_their_order(connect, served):
    client = connect(served)
    for kind, model, labels in (
        ("z", "named", ["a", "b"]),
        ("z", "named", ["x1", "x0"]),
        ("z", "plain", ["x1", "x0"]),
        ("x", "plain", ["z1", "z0"]),
        ("x", "plain", ["Z1", "v"]),
    ):
        call = {"z": client.decode, "x": client.log_prob}[kind]
        with pytest.raises(InvalidInput, match=r"no column '[xz]0', '[xz]1'; it has .* are other columns of the flow"):
            call(pd.DataFrame(AB, columns=labels), model=model)
    client.decode(pd.DataFrame(AB, columns=["u", "v"]), model="named")
    assert [body["z"] for body in served.bodies] == [AB.tolist()]


def test_the_context_has_the_names_that_every_flow_knows(connect, served):
    frame = pd.DataFrame({"context1": [7, 8], "b": [2, 4], "context0": [5, 6], "a": [1, 3]})
    connect(served).log_prob(frame, model="given")
    connect(served).log_prob(AB, context=frame[["context1", "context0"]], model="given")
    for body in served.bodies:
        assert (body["x"], body["context"]) == (AB.tolist(), [[5, 7], [6, 8]])


@pytest.mark.parametrize("index", [[5, 3], pd.Index([5, 3], name="id"), pd.Index(["q", "r"])])
def test_the_index_of_a_frame_is_no_column(connect, served, index):
    frame = pd.DataFrame(AB, columns=["u", "v"], index=index)
    table = pa.Table.from_pandas(frame)
    for rows in (frame, table, Stream.of(table, "__arrow_c_stream__"), frame.reset_index(names="Unnamed: 0")):
        connect(served).log_prob(rows, model="plain")
    assert [body["x"] for body in served.bodies] == [AB.tolist()] * 4
