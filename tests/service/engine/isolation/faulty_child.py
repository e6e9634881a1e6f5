"""The process of an engine that crashes, hangs, fails or fills its memory where the first value of a batch says so."""

from __future__ import annotations

import os
import signal
import sys

import numpy as np

from service.engine.isolation import child
from service.engine.runtime.ort_graph import OrtGraph

__all__ = ["CRASH", "FAIL", "FILL", "HANG", "MODULE"]

MODULE = __name__
CRASH, HANG, FAIL, FILL = 1001.0, 1002.0, 1003.0, 1004.0

_run = OrtGraph.__call__


def _faulty(graph, rows, context):
    match rows.flat[0]:
        case 1001.0:
            os.abort()
        case 1002.0:
            while True:
                signal.pause()
        case 1003.0:
            raise RuntimeError("at node 7 of /a/path")
        case 1004.0:
            np.ones(1 << 31)
    return _run(graph, rows, context)


if __name__ == "__main__":
    OrtGraph.__call__ = _faulty
    child.main(*map(int, sys.argv[1:]))
