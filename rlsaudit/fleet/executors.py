"""What does the work of a fleet: a pool on this machine, or a Dask cluster."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from rlsaudit.errors import NotTrustworthy, UsageError
from rlsaudit.fleet.work import end_all


@contextmanager
def executor_of(jobs: int, address: str | None) -> Iterator[Executor]:
    """A pool of threads, each waiting for a process of its own; or the workers of a Dask cluster.

    Raises NotTrustworthy when the cluster cannot be reached, UsageError without the extra ``fleet``.
    """
    if address is None:
        pool = ThreadPoolExecutor(jobs, thread_name_prefix="rlsaudit-fleet")
        try:
            yield pool
        except BaseException:
            end_all()
            pool.shutdown(cancel_futures=True)
            raise
        pool.shutdown()
        return
    try:
        distributed: Any = importlib.import_module("distributed")  # an extra, and untyped
    except ImportError as error:
        raise UsageError("--dask needs the extra: pip install 'rlsaudit[fleet]'") from error
    try:
        client = distributed.Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise NotTrustworthy(f"no Dask scheduler at {address}: {' '.join(str(error).split())}") from error
    with client:
        executor = client.get_executor(pure=False, retries=2)
        try:
            yield executor
        finally:
            executor.shutdown(wait=False)
