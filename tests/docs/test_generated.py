from __future__ import annotations

import pytest

from tests.docs.generated import PAGES, ROOT


@pytest.mark.parametrize("name", PAGES)
def test_a_page_made_from_the_code_is_up_to_date(name: str):
    assert (ROOT / name).read_text() == PAGES[name](), "run `make docs`"
