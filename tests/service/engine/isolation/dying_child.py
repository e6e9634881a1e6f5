"""The process of an engine that ends before it has loaded anything."""

from __future__ import annotations

import os

MODULE = __name__

if __name__ == "__main__":
    os.abort()
