from __future__ import annotations

import pytest
from pydantic import BaseModel, Field

from service.api.codecs.query import as_declared
from service.tabular import parse_number


class Asked(BaseModel):
    n: int = 1
    seed: int | None = None
    temperature: float = 1.0
    rate: float | None = Field(None, alias="alarm_rate")
    name: str | None = None


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
