"""A limit on the time of each statement that a script cannot lift by SET statement_timeout = 0."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

import psycopg


class Deadline:
    """A thread that cancels the running statement of a connection when its time is over."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.expired = False
        self._lock = threading.Lock()
        self._connection: psycopg.Connection[tuple[object, ...]] | None = None
        self._until = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="rlsaudit-deadline", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()

    def begin(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        """The clock starts for a statement on ``connection``."""
        with self._lock:
            self.expired = False
            self._connection, self._until = connection, time.monotonic() + self.seconds

    def end(self) -> None:
        """The statement is over, one way or the other."""
        with self._lock:
            self._connection = None

    def _watch(self) -> None:
        while not self._stopped.wait(min(0.25, self.seconds / 2)):
            with self._lock:
                if self._connection is not None and time.monotonic() > self._until:
                    self.expired = True
                    self._connection.cancel_safe(timeout=5)
