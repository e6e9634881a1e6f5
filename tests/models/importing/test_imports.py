"""Every family of every library, as its adapter reads it: against the library's own log_prob, in float64.

The exports are slow; `docs/imports.md` has their outcomes, and a slow test holds it to them.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.export.exported_graph import ExportedGraph
from models.export.gate import check_flow, reference
from models.export.graph import export_graph
from models.export.invariance import check_invariance
from models.export.probes import make_probes
from models.importing.adapted import Unsupported
from models.importing.agreement import TOLERANCE, check_agreement
from models.importing.load import draw_rows
from models.importing.take import library_precision, take
from service.errors import DataError
from tests.models.importing.families import FAMILIES, Case, cases, quick_cases
from tests.models.importing.matrix import REFUSED, Outcome, exported, name_of, page_rows, table_rows, take_case

REASONS = {
    "zuko CNF": "it solves a differential equation in steps that it chooses by looking at the rows",
    "nflows cubic coupling": "it picks the roots of its cubic by boolean masks",
    "nflows CauchyCDF": "the flow's inverse fails on draws from its base",
    "nflows ActNorm that has seen no data": "its first batch would set its scale",
    "normflows ActNorm that has seen no data": "its first batch would set its scale",
    "FrEIA ActNorm that has seen no data": "its first batch would set its scale",
    "normflows Planar, tanh": "it has no inverse of its own",
    "normflows Radial": "it has no inverse of its own",
    "normflows Residual": "its log-determinant is an estimate",
    "normflows BatchNorm": "a row's density depends on its neighbours",
    "normflows CircularCoupledRationalQuadraticSpline": "which is not a bijection",
    "FrEIA IResNetLayer": "its log-determinant is an estimate",
}


def refusal(case: Case) -> str | None:
    return REASONS.get(f"{case.family.library} {case.family.name}")


QUICK = quick_cases()


@pytest.mark.parametrize("case", [case for case in QUICK if refusal(case) is None], ids=str)
def test_it_is_the_library_s_own_flow(case: Case) -> None:
    imported = take(case.family.build(case.width, case.context))
    flow = imported.flow
    assert (flow.width, flow.context_width, imported.library) == (case.width, case.context, case.family.library)
    rows = draw_rows(imported, 24)
    error = check_agreement(imported, rows.x, rows.context)
    # nearer than the bound: what is left is a base in float32, and constants that a library keeps in float32
    assert error < 1e-6 < TOLERANCE
    # a flow, whatever its library says: the inverse undoes it, and the log-determinant is the Jacobian's
    probes = make_probes(rows.x, rows.context, None)
    held_out = type(probes)(rows.x, rows.context, ())
    check_flow(reference(flow.float()), held_out)


@pytest.mark.parametrize("case", [case for case in QUICK if refusal(case) is not None], ids=str)
def test_what_cannot_be_exported_is_refused_with_the_reason(case: Case) -> None:
    with pytest.raises((Unsupported, DataError)) as raised:
        draw_rows(take(case.family.build(case.width, case.context)), 40)
    assert str(refusal(case)) in raised.value.detail


def test_there_are_enough_of_them() -> None:
    passing = [case for case in QUICK if refusal(case) is None]
    assert len(passing) >= 45
    assert {case.width for case in passing} == {2, 16, 64}
    assert sum(case.context > 0 for case in passing) >= 12
    assert {family.library for family in FAMILIES} == {"zuko", "nflows", "normflows", "FrEIA"}
    assert {case.width for case in cases()} == {2, 16, 64}


def test_the_page_has_a_row_for_each_family_and_width() -> None:
    found: dict[tuple[str, str], list[int]] = {}
    for library, family, widths, _, _ in page_rows():
        found.setdefault((library, family), []).extend(int(width) for width in widths.split(","))
    expected: dict[tuple[str, str], list[int]] = {}
    for case in cases():
        expected.setdefault(name_of(case), []).append(case.width)
    assert {key: sorted(widths) for key, widths in found.items()} == expected


def test_what_the_page_says_is_refused_when_it_is_read_is_refused_here() -> None:
    told = {
        f"{library} {family.removesuffix(', conditional')}"
        for library, family, _, error, words in page_rows()
        if not error and any(reason in words for reason in REASONS.values())
    }
    assert told == set(REASONS)


@pytest.mark.slow
@pytest.mark.parametrize("case", cases(), ids=str)
def test_the_page_is_right(case: Case) -> None:
    outcome = exported(case)
    rows = [row for row in page_rows() if row[:2] == name_of(case) and str(case.width) in row[2].split(", ")]
    assert len(rows) == 1
    assert rows[0][4].startswith(REFUSED) == (outcome.reason is not None), outcome


def test_the_table_tells_the_greatest_error_of_the_widths_and_each_reason_once() -> None:
    results = {
        str(case): Outcome(reason="no") if case.family.library == "FrEIA" else Outcome(1e-16) for case in cases()
    }
    for case, outcome in zip(cases(), (Outcome(2e-8, 1e-7), Outcome(1e-9), Outcome(1e-9, 3e-6)), strict=False):
        results[str(case)] = outcome
    rows = table_rows(results)
    conditional = [case.context > 0 for case in cases()[:3]]
    assert conditional == [False, True, False]
    assert rows[0] == ("zuko", "RealNVP", "2, 16, 64", "2e-08", "passes, D = 2, 16: 3e-06")
    assert rows[1] == ("zuko", "RealNVP, conditional", "2, 16, 64", "1e-09", "")
    assert {row[3:] for row in rows if row[0] == "FrEIA"} == {("", "refused: no")}
    assert len({row[:2] for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("library", "family"),
    [("nflows", "DiagonalNormal base"), ("normflows", "Planar, leaky ReLU"), ("FrEIA", "InvAutoAct")],
)
def test_one_of_each_library_in_its_graphs(library: str, family: str) -> None:
    """The gate and its thousand rows are for the slow tests."""
    case = next(case for case in cases() if (case.family.library, case.family.name) == (library, family))
    imported, rows = take_case(case)
    with library_precision():
        expected = imported.log_prob(torch.from_numpy(rows.x).double(), None).numpy()
    flow = imported.flow.float().fold()
    forward = ExportedGraph(export_graph(flow, "forward"), "forward")(rows.x, None, 7)
    assert np.max(np.abs(forward.log_prob - expected) / (1 + np.abs(expected))) < 1e-5
    inverse = ExportedGraph(export_graph(flow, "inverse"), "inverse")(forward.value.astype(np.float32), None, 7)
    np.testing.assert_allclose(inverse.value, rows.x, rtol=1e-4, atol=1e-4)


def test_the_sums_of_a_quadratic_spline_do_not_depend_on_the_place_of_a_row() -> None:
    case = next(case for case in cases() if case.family.name == "quadratic coupling")
    imported, rows = take_case(case)
    flow = imported.flow.float().fold()
    check_invariance(ExportedGraph(export_graph(flow, "forward"), "forward"), rows.x, None)
