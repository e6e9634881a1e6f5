"""The context of rows, as the command line reads it."""

from __future__ import annotations

import numpy as np
import pytest

from pushforward.cli.context_input import choose_context, make_context_layout, read_context
from pushforward.cli.row_input import open_rows
from pushforward.cli.row_layout import RowBlock, RowLayout
from pushforward.client.errors import InvalidInput
from tests.pushforward.conftest import CONTEXT

ROWS = RowLayout.of((2,), ["p", "q"])
LAYOUT = make_context_layout(ROWS, 3, [feature.model_dump() for feature in CONTEXT])
PLAIN = make_context_layout(ROWS, 2, [])


def test_a_context_without_names_has_made_up_ones():
    assert PLAIN.names == ("context0", "context1")
    assert not PLAIN.named
    assert make_context_layout(ROWS, 0, []) is None


def test_a_column_of_classes_counts_once():
    assert LAYOUT.names == ("dose", "kind=red", "kind=7")
    assert LAYOUT.sources == ("dose", "kind")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.5,1,0", [0.5, 1, 0]),
        ("dose=0.5,kind=red", [0.5, 1, 0]),
        (" kind = 7.0 , dose = -1e3 ", [-1000, 0, 1]),
        ("kind=red=1,kind=7=0,dose=2", [2, 1, 0]),
    ],
)
def test_one_context_for_all_rows(text, expected):
    assert read_context(text, LAYOUT).tolist() == np.float32(expected).tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kind,other,dose\nred,x,1\n 7 ,y,2\n", [[1, 1, 0], [2, 0, 1]]),
        ("kind=7,dose,kind=red\n0,1,1\n0.5,2,0.25\n", [[1, 1, 0], [2, 0.25, 0.5]]),
        ("1,1,0\n", [[1, 1, 0]]),
    ],
)
def test_a_file_of_contexts(tmp_path, text, expected):
    (tmp_path / "c.csv").write_text(text)
    assert read_context(f"@{tmp_path / 'c.csv'}", LAYOUT).tolist() == expected


def test_no_context():
    assert read_context(None, LAYOUT) is None
    assert read_context(None, None) is None


@pytest.mark.parametrize(
    ("text", "layout", "words"),
    [
        ("1,2", LAYOUT, "has 2 numbers, and this flow takes 3: dose, kind=red, kind=7"),
        ("1", PLAIN, "has 1 numbers, and this flow takes 2$"),
        ("1", None, "takes 0"),
        ("dose=1,kind=blue", LAYOUT, "'blue' is no class of kind; there are red, 7"),
        ("dose=much,kind=red", LAYOUT, "dose must be a number, not 'much'"),
        ("dose=1", LAYOUT, "does not give kind"),
        ("dose=1,kind=red=1", LAYOUT, "does not give kind"),
        ("dose=1,dose=2,kind=red", LAYOUT, "gives dose twice"),
        ("dose=1,kind=red,kind=7", LAYOUT, "gives kind twice"),
        ("doze=1,kind=red", LAYOUT, "expected NAME=VALUE with a NAME of dose, kind, and found 'doze=1'"),
        ("1,kind=red", LAYOUT, "expected NAME=VALUE with a NAME of dose, kind, and found '1'"),
        ("context0=1,context1=2", PLAIN, "must be numbers with commas between them"),
        ("dose=inf,kind=red", LAYOUT, "not finite"),
    ],
)
def test_a_context_that_cannot_be_used(text, layout, words):
    with pytest.raises(InvalidInput, match=words):
        read_context(text, layout)


def test_a_class_that_the_flow_does_not_know_is_named_by_line_and_column(tmp_path):
    (tmp_path / "c.csv").write_text("dose,kind\n1,red\n2,blue\n")
    with pytest.raises(InvalidInput, match="line 3, column 2: 'blue' is no class of kind; there are red, 7"):
        read_context(f"@{tmp_path / 'c.csv'}", LAYOUT)


# --- where an input of rows has its context


def test_columns_of_another_name():
    beside = choose_context(None, "amount, colour", LAYOUT).layout
    assert beside.names == ("amount", "colour=red", "colour=7")
    assert beside.sources == ("amount", "colour")
    assert choose_context(None, "a,b", PLAIN).layout.names == ("a", "b")
    assert choose_context(None, "a,b", PLAIN).layout.named


def test_without_an_option_the_flows_own_names_are_looked_for():
    assert choose_context(None, None, LAYOUT).layout is LAYOUT
    assert choose_context("1,2,3", None, LAYOUT).layout is None
    nothing = choose_context(None, None, None)
    assert (nothing.rows, nothing.layout) == (None, None)


@pytest.mark.parametrize(
    ("value", "columns", "layout", "words"),
    [
        ("1,2,3", "a,b", LAYOUT, "give one"),
        (None, "a", LAYOUT, "names 1 columns, and the flow's context has 2: dose, kind"),
        (None, "a,a", LAYOUT, "names a column twice"),
        (None, "a", None, "takes no context"),
    ],
)
def test_options_that_do_not_fit(value, columns, layout, words):
    with pytest.raises(InvalidInput, match=words):
        choose_context(value, columns, layout)


def test_a_block_has_its_own_part_of_the_contexts(tmp_path):
    np.save(tmp_path / "c.npy", np.arange(12).reshape(4, 3))
    given = choose_context(f"@{tmp_path / 'c.npy'}", None, LAYOUT)
    block = RowBlock(np.zeros((2, 1), np.float32), 1)
    assert given.for_block(block, "x.csv").tolist() == [[3, 4, 5], [6, 7, 8]]
    with pytest.raises(InvalidInput, match=r"context has 4 rows, and x.csv has at least 5"):
        given.for_block(RowBlock(np.zeros((2, 1), np.float32), 3), "x.csv")
    with pytest.raises(InvalidInput, match=r"context has 4 rows, and x.csv has 3"):
        given.require_used(3, "x.csv")
    given.require_used(4, "x.csv")


def test_rows_that_hold_their_context_are_read_with_it(tmp_path):
    (tmp_path / "x.csv").write_text("dose,a,kind\n1,2,red\n3,4,7\n")
    with open_rows(str(tmp_path / "x.csv"), RowLayout.of((1,), ["a"]), context_layout=LAYOUT, block_rows=1) as rows:
        block = rows.read_whole()
    assert block.values.tolist() == [[2], [4]]
    assert block.context.tolist() == [[1, 1, 0], [3, 0, 1]]
