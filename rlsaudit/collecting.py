"""Work that makes many values and little garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collecting() -> Iterator[None]:
    """Leave cyclic garbage until later: searching hundreds of thousands of live values for it takes long."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            # What was made meanwhile counts as old at once: else the next value that is made would have all of it searched.
            gc.freeze()
            gc.unfreeze()
            gc.enable()
