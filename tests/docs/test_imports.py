"""docs/imports.md: each example is a flow that can be imported."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from models.importing.agreement import check_agreement
from models.importing.load import draw_rows
from models.importing.take import knows_shape, take
from tests.docs.readme import blocks

PAGE = Path(__file__).parents[2] / "docs" / "imports.md"
EXAMPLES = [code for code in blocks(PAGE.read_text(), "python") if "def make_flow" in code]
LIBRARIES = ("zuko", "nflows", "normflows", "FrEIA", "torch")


def test_there_is_one_for_each_library() -> None:
    assert len(EXAMPLES) == len(LIBRARIES)


@pytest.mark.parametrize("library", LIBRARIES)
def test_an_example_is_a_flow_that_can_be_imported(library: str) -> None:
    code = EXAMPLES[LIBRARIES.index(library)]
    names: dict[str, Any] = {"__name__": "my_flows"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch says of the libraries' code
        exec(code, names)
        torch.manual_seed(0)
        flow = names["make_flow"]()
    imported = take(flow, event_shape=None if knows_shape(flow) else (2,))
    assert imported.library == library
    rows = draw_rows(imported, 20)
    assert check_agreement(imported, rows.x, rows.context) < 1e-6
