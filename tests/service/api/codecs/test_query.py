from __future__ import annotations

import pytest
from pydantic import BaseModel, Field

from service.api.codecs.query import LISTS, as_declared, query_arguments
from service.errors import InvalidArgument
from service.tabular import parse_number


class Asked(BaseModel):
    n: int = 1
    seed: int | None = None
    temperature: float = 1.0
    rate: float | None = Field(None, alias="alarm_rate")
    name: str | None = None


def test_a_query_holds_texts_lists_of_numbers_and_names():
    query = (("n", "5"), ("context", "0.5,1"), ("return", "z,,log_prob"))
    assert query_arguments(query) == {"n": "5", "context": [0.5, 1.0], "return": ["z", "log_prob"]}
    assert query_arguments(()) == {}


def test_what_is_given_twice_is_refused_and_each_of_it_is_named():
    with pytest.raises(InvalidArgument, match=r"^b is given more than once") as refused:
        query_arguments((("a", "1"), ("b", "1"), ("c", "1"), ("b", "1"), ("c", "2")))
    assert [reason.loc for reason in refused.value.errors] == [("query", "b"), ("query", "c")]


def test_texts_are_read_where_a_number_is_declared():
    texts = {"n": "5", "seed": "-7", "temperature": "2", "alarm_rate": "1e-3", "name": "5", "other": "5"}
    read = as_declared(Asked, texts)
    assert read == {"n": 5, "seed": -7, "temperature": 2.0, "alarm_rate": 0.001, "name": "5", "other": "5"}
    assert [type(value) for value in read.values()] == [int, int, float, float, str, str]


@pytest.mark.parametrize("text", ["1_0", "1.0", "1e3", " 1", "1 ", "+1", "", "-", "\u0661", "1" * 5000])
def test_what_is_not_written_as_an_integer_stays_a_text(text):
    assert as_declared(Asked, {"n": text, "seed": text}) == {"n": text, "seed": text}


@pytest.mark.parametrize("text", ["1_0", "1_0.5", "one", "", "\u0661"])
def test_what_is_no_number_stays_a_text(text):
    assert as_declared(Asked, {"temperature": text}) == {"temperature": text}
    with pytest.raises(ValueError, match=text or "could not convert"):
        parse_number(text)


@pytest.mark.parametrize("text", ["+5", " 5", "5 ", "\t5", "5\n", "\xa05", "\u0665", "5_0", "0x5", "+.5", "+inf"])
def test_no_numeric_parameter_takes_a_sign_of_plus_or_a_space(text):
    assert as_declared(Asked, {"temperature": text, "n": text}) == {"temperature": text, "n": text}
    for name in LISTS:
        with pytest.raises(InvalidArgument, match=f"{name} must be numbers with commas between them"):
            query_arguments(((name, f"1,{text}"),))
