from __future__ import annotations

import pytest

from pushforward.cli.row_layout import RowBlock, locate_errors
from pushforward.client.errors import InvalidInput
from service.errors import NotFinite, Reason


def test_an_error_without_a_row_stays_as_it_is():
    block = RowBlock([], 0, [4])
    error = NotFinite("all of it", (Reason(("x",), "odd"),))
    with pytest.raises(NotFinite, match="all of it"), locate_errors("file", block):
        raise error
    with pytest.raises(InvalidInput, match="file, line 4: odd"), locate_errors("file", block):
        raise NotFinite("row 0", (Reason(("x",), "odd", 0),))
