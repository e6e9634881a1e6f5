"""One thread for the libraries that an evaluation computes with. Must not import torch.

OpenMP's and BLAS's threads gain little on so few rows, and on busy cores they wait for one another for many times as
long as one thread computes.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import cast

from threadpoolctl import threadpool_limits

__all__ = ["single_thread"]


def single_thread() -> AbstractContextManager[object]:
    """Give these libraries one thread for as long as a block runs."""
    return cast("AbstractContextManager[object]", threadpool_limits(1))
