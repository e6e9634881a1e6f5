from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.bundle.bases import UniformBase
from service.bundle.consistency import check_consistency
from service.bundle.constraints import Constraint
from service.bundle.manifest import (
    MAX_MANIFEST_BYTES,
    MAX_NAME,
    MAX_TEXT,
    ContextFeature,
    Feature,
    Manifest,
    Quantization,
    Support,
    is_flow_name,
    seal_older,
)
from service.bundle.variational import Variational
from service.errors import DigestMismatch, ManifestInvalid
from tests.service.bundle.conftest import make_manifest


def read(content: dict[str, object]) -> Manifest:
    """Read a manifest of this content, under its digest."""
    return Manifest.from_json(seal_older(json.dumps(content).encode(), edited=True))


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(
    name=st.from_regex(r"[a-z0-9][a-z0-9_-]{0,63}", fullmatch=True),
    version=st.integers(1, 10**6),
    description=st.text(),
    low=st.none() | finite,
    direction=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=2),
    unit=st.none() | st.text(max_size=MAX_NAME),
    reading=st.text(),
)
def test_what_is_written_is_read_back(name, version, description, low, direction, unit, reading):
    manifest = make_manifest(
        name=name,
        version=version,
        description=description,
        support=Support(low=low, low_closed=True),
        base=UniformBase(low=-1.0, high=2.0),
        quantization=Quantization(low=0.0, high=16.0, reading=reading),
        features=[Feature(name="a", unit=unit), Feature(name="b")],
        directions={"up": direction},
        context_width=2,
        context_features=[ContextFeature(name="c", unit=unit), ContextFeature(name="k=1", column="k", category="1")],
    )
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_an_inverse_has_a_closed_form_unless_the_manifest_says_otherwise():
    written = json.loads(make_manifest().to_json())
    del written["inverse"]
    assert read(written).inverse == "closed form"
    assert Manifest.from_json(make_manifest(inverse="numeric").to_json()).inverse == "numeric"


def test_an_image_counts_its_values():
    assert make_manifest(event_shape=[8, 8, 1], latent_width=64).event_width == 64


def test_the_standard_error_shrinks_with_the_root_of_the_rows():
    calibration = make_manifest().calibration.model_copy(update={"rows": 25, "standard_deviation": 2.0})
    assert math.isclose(calibration.standard_error, 0.4)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"format": 4}, "format"),
        ({"name": "../etc"}, "name"),
        ({"name": "Upper"}, "name"),
        ({"version": 0}, "version"),
        ({"version": "1"}, "version"),
        ({"event_shape": []}, "event_shape"),
        ({"event_shape": [0]}, "event_shape"),
        ({"event_shape": [3]}, "latent_width is 2"),
        ({"context_features": [{"name": "c"}]}, "1 context_features for a context of 0"),
        ({"context_width": 2, "context_features": [{"name": "c"}, {"name": "c"}]}, "two columns of context are called"),
        (
            {
                "context_width": 2,
                "context_features": [{"name": "k"}, {"name": "k=1", "column": "k", "category": "1"}],
            },
            "two columns of context are called 'k'",
        ),
        (
            {"features": [{"name": "a"}, {"name": "b"}], "context_width": 1, "context_features": [{"name": "b"}]},
            "'b' names both",
        ),
        ({"context_width": 1, "context_features": [{"name": "k=1", "column": "k"}]}, "both a column and a category"),
        ({"event_shape": [1 << 11, 1 << 11], "latent_width": 2}, "at most"),
        ({"features": [{"name": "only one"}]}, "1 features"),
        ({"inverse": "by hand"}, "inverse"),
        ({"base": {"family": "cauchy"}}, "base"),
        ({"base": {"family": "uniform", "low": 1.0, "high": 1.0}}, "low < high"),
        ({"directions": {"up": [1.0]}}, "direction 'up'"),
        ({"directions": {"up": [1.0, 2.0, 3.0]}}, "direction 'up'"),
        ({"trace": [{"name": "scale", "shape": [1]}]}, "step 'scale' has shape [1]"),
        ({"trace": [{"name": "scale", "shape": [3]}]}, "step 'scale' has shape [3]"),
        ({"event_shape": [1, 2], "features": [{"name": "a"}, {"name": "b"}]}, "2 features for an event"),
        ({"context_width": 1, "context_features": [{"name": "k=1", "category": "1"}]}, "both a column and a category"),
        ({"files": {"forward.onnx": "not a digest"}}, "forward.onnx"),
        ({"nmae": "misspelt"}, "nmae"),
    ],
)
def test_a_wrong_key_is_named(change, names):
    content = json.loads(make_manifest().to_json()) | change
    with pytest.raises(ManifestInvalid) as raised:
        read(content)
    assert names in " ".join(f"{'.'.join(map(str, e.loc))} {e.reason}" for e in raised.value.errors)


@pytest.mark.parametrize("key", ["name", "version", "event_shape", "base", "calibration", "parity", "provenance"])
def test_a_missing_key_is_named(key):
    content = json.loads(make_manifest().to_json())
    del content[key]
    with pytest.raises(ManifestInvalid) as raised:
        read(content)
    assert [e.loc for e in raised.value.errors] == [("flow.json", key)]


def test_an_event_may_hold_just_as_many_values_as_it_may():
    assert make_manifest(event_shape=[1 << 10, 1 << 10], latent_width=1 << 20).event_width == 1 << 20


def test_equal_quantiles_are_in_order():
    content = json.loads(make_manifest().to_json())
    content["calibration"] |= {"rows": 3, "quantiles": [-2.0, -2.0, -1.0]}
    assert read(content).calibration.quantiles == [-2.0, -2.0, -1.0]


@pytest.mark.parametrize("quantiles", [[1.0, 0.0], [0.0, math.inf], [0.0]])
def test_quantiles_ascend_and_are_finite(quantiles):
    content = json.loads(make_manifest().to_json())
    content["calibration"]["quantiles"] = quantiles
    with pytest.raises(ManifestInvalid):
        read(content)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["calibration"].update(quantiles=[-1e300, 0.0]),
        lambda content: content.update(directions={"up": [0.0, 1e300]}),
    ],
)
def test_numbers_are_within_the_precision_of_the_flow(change, precision):
    """Where they are not, a quantile of log_prob would be NaN, and an edited row infinite."""
    content = json.loads(make_manifest(precision=precision).to_json())
    change(content)
    if precision == "float64":
        read(content)
    else:
        with pytest.raises(ManifestInvalid) as caught:
            read(content)
        assert "the greatest float32" in str(caught.value.errors)


@pytest.mark.parametrize(
    "path",
    [
        ("version",),
        ("opset",),
        ("calibration", "rows"),
        ("parity", "batches", 0),
        ("parity", "batch_multiple"),
        ("parity", "rows"),
        ("parity", "rows_beyond"),
        ("parity", "rows_left_out"),
    ],
)
@pytest.mark.parametrize("number", [2**63, 10**400, -1])
def test_numbers_that_count_are_bounded(path, number):
    content = json.loads(make_manifest(parity={**make_manifest().parity.model_dump(), "rows": 9}).to_json())
    *outer, key = path
    place = content
    for each in outer:
        place = place[each]
    place[key] = number
    with pytest.raises(ManifestInvalid):
        read(content)


def test_a_manifest_whose_numbers_overflow_is_refused_without_a_warning(golden):
    content = json.loads(make_manifest().to_json())
    content["calibration"].update(quantiles=[-1e300, *content["calibration"]["quantiles"][1:]])
    content["precision"] = "float64"
    with pytest.raises(ManifestInvalid, match="does not agree"):
        check_consistency(read(content), golden)


@pytest.mark.parametrize("ranks", [[0], [0, 1, 2], [0, 1, 3], [0, 2], [1, 3], [3, 0], [0, 0], [-1, 3]])
def test_ranks_ascend_over_all_rows(ranks):
    content = json.loads(make_manifest().to_json())
    content["calibration"] |= {"rows": 4, "ranks": [0, 3]}
    assert read(content).calibration.ranks == [0, 3]
    content["calibration"]["ranks"] = ranks
    with pytest.raises(ManifestInvalid, match="not a manifest"):
        read(content)


@pytest.mark.parametrize(("ranks", "right"), [([0, 2, 3], True), ([0, 0, 3], False), ([0, 3, 3], False)])
def test_no_two_quantiles_have_one_rank(ranks, right):
    content = json.loads(make_manifest().to_json())
    content["calibration"] |= {"rows": 4, "quantiles": [-2.0, -2.0, -1.0], "ranks": ranks}
    if right:
        assert read(content).calibration.ranks == ranks
    else:
        with pytest.raises(ManifestInvalid, match="not a manifest"):
            read(content)


@pytest.mark.parametrize("number", [1, 2])
def test_a_manifest_of_an_older_format_is_refused_with_the_way_out(number):
    content = json.loads(make_manifest().to_json()) | {"format": number}
    del content["digest"], content["calibration"]["ranks"], content["provenance"]["recalibration"]
    data = json.dumps(content).encode()
    with pytest.raises(ManifestInvalid, match=f"of format {number}.*pushforward reseal"):
        Manifest.from_json(data)
    assert Manifest.from_json(seal_older(data)) == make_manifest()


def test_a_sealed_manifest_is_left_as_it_is():
    data = make_manifest().to_json()
    assert seal_older(data) is data


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"description": ""', '"description": "x"'),
        ('"mean": -3.1', '"mean": -3.2'),
        ('"name": "line"', '"name": "lane"'),
        ('"data": "made by a test"', '"data": "made by a tesu"'),
        ('"digest": "', '"digest": "0'),
    ],
)
def test_a_changed_manifest_is_refused(old, new):
    data = make_manifest().to_json().decode()
    changed = data.replace(old, new)
    assert changed != data
    with pytest.raises(DigestMismatch, match="reseal --edited"):
        Manifest.from_json(changed.encode())
    with pytest.raises(DigestMismatch):
        seal_older(changed.encode())
    assert Manifest.from_json(seal_older(changed.encode(), edited=True)).version == 1


def test_a_manifest_without_a_digest_is_refused():
    content = json.loads(make_manifest().to_json())
    del content["digest"]
    with pytest.raises(ManifestInvalid) as raised:
        Manifest.from_json(json.dumps(content).encode())
    assert [e.loc for e in raised.value.errors] == [("flow.json", "digest")]


def test_blanks_do_not_count():
    content = json.loads(make_manifest().to_json())
    assert Manifest.from_json(json.dumps(content, indent=7, sort_keys=True).encode()) == make_manifest()


@pytest.mark.parametrize(
    "change",
    [
        {"description": "§" * (MAX_TEXT + 1)},
        {"directions": {"§" * (MAX_NAME + 1): [0.0, 0.0]}},
        {"features": [{"name": "a", "unit": "§" * (MAX_NAME + 1)}, {"name": "b"}]},
        {"provenance": {"data": "§" * (MAX_TEXT + 1), "created": "now"}},
        {"provenance": {"data": "d", "created": "§" * (MAX_NAME + 1)}},
        {"provenance": {"data": "d", "created": "now", "recipe": {"a": [{"b": "§" * (MAX_TEXT + 1)}]}}},
        {"provenance": {"data": "d", "created": "now", "recipe": {"§" * (MAX_TEXT + 1): 1}}},
        {"provenance": {"data": "d", "created": "now", "libraries": {"a": "§" * (MAX_NAME + 1)}}},
    ],
)
def test_the_length_of_texts_is_bounded(change):
    with pytest.raises(ManifestInvalid, match="not a manifest"):
        read(json.loads(make_manifest().to_json()) | change)
    read(json.loads(json.dumps(json.loads(make_manifest().to_json()) | change).replace("\\u00a7", "", 1)))


def test_the_size_of_a_manifest_is_bounded():
    data = make_manifest().to_json()
    Manifest.from_json(data + b" " * (MAX_MANIFEST_BYTES - len(data)))
    with pytest.raises(ManifestInvalid, match="cap"):
        Manifest.from_json(data + b" " * (MAX_MANIFEST_BYTES - len(data) + 1))


@pytest.mark.parametrize("value", ["1e999", "NaN", "-Infinity", '{"a": 1, "a": 2}', "[" * 100_000, '"\\ud800"'])
def test_no_two_readers_can_take_a_manifest_for_different_things(value):
    text = make_manifest().to_json().decode()
    with pytest.raises(ManifestInvalid):
        seal_older(text.replace('"recipe": {}', '"recipe": {"it": ' + value + "}").encode(), edited=True)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff\xfe"])
def test_what_is_no_manifest_is_refused(data):
    with pytest.raises(ManifestInvalid):
        Manifest.from_json(data)


@pytest.mark.parametrize(
    ("name", "allowed"),
    [("a", True), ("two-moons", True), ("0_1", True), ("a" * 64, True), ("a" * 65, False), ("", False)]
    + [(name, False) for name in ("-a", "_a", "A", "a.b", "a/b", "..", "a\n", "ä")],
)
def test_flow_names(name, allowed):
    assert is_flow_name(name) is allowed


EVIDENCE = {
    "elbo": -31.4,
    "log_evidence": -31.3,
    "log_evidence_se": 0.01,
    "log_evidence_ais": -31.2,
    "log_evidence_ais_se": 0.05,
    "ess_share": 0.9,
    "pareto_k": None,
    "restarts": 2,
    "verdict": "good",
}


def test_keys_that_format_3_was_given_later_are_left_out_where_they_say_nothing():
    written = make_manifest().to_json()
    assert b"variational" not in written
    assert b"constraints" not in written
    given = make_manifest(variational=Variational(**EVIDENCE))
    assert Manifest.from_json(given.to_json()) == given
    assert json.loads(given.to_json())["variational"] == EVIDENCE


@pytest.mark.parametrize("wrong", [{"verdict": "perfect"}, {"ess_share": 1.5}, {"restarts": 0}, {"more": 1}])
def test_evidence_of_another_kind_is_refused(wrong):
    content = json.loads(make_manifest(variational=Variational(**EVIDENCE)).to_json())
    content["variational"] |= wrong
    with pytest.raises(ManifestInvalid):
        read(content)


def test_a_simplex_makes_z_narrower_than_x():
    simplex = Constraint(kind="simplex", first=0, columns=3)
    positive = Constraint(kind="half_line", first=3, columns=1, low=0.0)
    manifest = make_manifest(event_shape=[4], latent_width=3, constraints=[simplex, positive])
    assert Manifest.from_json(manifest.to_json()) == manifest


@pytest.mark.parametrize(
    ("constraints", "said"),
    [
        ([{"kind": "simplex", "first": 0, "columns": 3}] * 2, "none is of two"),
        ([{"kind": "simplex", "first": 0, "columns": 5}], "reach to column 4"),
        ([{"kind": "simplex", "first": 0, "columns": 3, "low": 0.0}], "has other ends"),
        ([{"kind": "half_line", "first": 0, "columns": 1}], "has other ends"),
        ([{"kind": "half_line", "first": 0, "columns": 1, "low": 0.0, "high": 1.0}], "has other ends"),
        ([{"kind": "interval", "first": 0, "columns": 1, "low": 1.0, "high": 0.0}], "has other ends"),
        ([{"kind": "interval", "first": 0, "columns": 1, "low": 0.0, "high": 1.0}], "an event holds 4 values"),
    ],
)
def test_constraints_that_do_not_fit_are_refused(constraints, said):
    simplex = Constraint(kind="simplex", first=0, columns=3)
    content = json.loads(make_manifest(event_shape=[4], latent_width=3, constraints=[simplex]).to_json())
    content["constraints"] = constraints
    with pytest.raises(ManifestInvalid) as caught:
        read(content)
    assert said in caught.value.errors[0].reason
