"""Where Hypothesis keeps what it reads.  It is imported only where something is made at random: that takes long."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def at_home() -> Iterator[None]:
    """Keep it in the user's cache directory, not in the working directory, which is the default.

    Of every module that is not installed it reads the source; where that is not kept it takes longer than the search.
    """
    from hypothesis.configuration import set_hypothesis_home_dir  # noqa: PLC0415

    cache = os.environ.get("XDG_CACHE_HOME") or Path(os.environ.get("HOME") or tempfile.gettempdir()) / ".cache"
    set_hypothesis_home_dir(Path(cache) / "rlsaudit" / "hypothesis")
    try:
        yield
    finally:
        set_hypothesis_home_dir(None)
