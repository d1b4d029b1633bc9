"""When a run began and what its phases took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime


@dataclass
class Clock:
    """Runs from when it is made."""

    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    phases: list[tuple[str, float]] = field(default_factory=list)
    """Name and seconds of each phase that has ended."""
    _begun: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.monotonic() - self._begun

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """A phase is what the block does."""
        begun = time.monotonic()
        yield
        self.phases.append((phase, round(time.monotonic() - begun, 3)))
