"""Cases that only `make test-slow` runs: those that hold what another case of the same test holds nearly as well."""

from __future__ import annotations

import pytest

__all__ = ["slow"]


def slow(*values: object):
    """A case of `pytest.mark.parametrize` that is slow, or much like another."""
    return pytest.param(*values, marks=pytest.mark.slow)
