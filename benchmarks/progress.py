"""A bar for each measurement, which runs while a program of its own is measuring."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(what: str, seconds: float) -> Iterator[None]:
    """Show a bar over the seconds that a measurement is going to take; it is gone when that ends."""
    over = threading.Event()
    began = time.monotonic()
    form = "{desc:<60} {bar:30} {n:.0f}/{total:.0f} s"
    with tqdm(total=seconds, desc=what, position=1, leave=False, bar_format=form, delay=0.2) as shown:

        def run() -> None:
            while not over.wait(0.5):
                shown.n = min(seconds, time.monotonic() - began)
                shown.refresh()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
