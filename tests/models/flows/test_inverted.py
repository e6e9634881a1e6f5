from __future__ import annotations

import torch

from models.flows.analytic import Exp, Square
from models.flows.couplings import bernstein
from models.flows.inverted import Inverted, invert_chain
from models.flows.linear import FixedLinear, LULinear
from tests.laws.table import normal


def test_an_inverted_bijection_exchanges_its_directions_and_says_so() -> None:
    x = normal(5, 2).abs()
    step = Inverted(Square())
    assert step.name == "inverse square"
    for answer, expected in ((step(x), Square().inverse(x)), (step.inverse(x), Square()(x))):
        assert all(torch.equal(one, other) for one, other in zip(answer, expected, strict=True))


def test_it_is_a_search_where_what_it_inverts_is_one() -> None:
    assert Inverted(bernstein(2, transforms=1)[0]).numeric_inverse
    assert not Inverted(Square()).numeric_inverse


def test_folded_it_inverts_the_folded_bijection() -> None:
    folded = Inverted(LULinear(2)).folded()
    assert isinstance(folded, Inverted)
    assert isinstance(folded.bijection, FixedLinear)


def test_a_chain_is_inverted_from_its_end_and_twice_it_is_itself() -> None:
    chain = [Square(), Exp()]
    once = invert_chain(chain)
    assert [step.name for step in once] == ["inverse exp", "inverse square"]
    assert invert_chain(once) == chain
