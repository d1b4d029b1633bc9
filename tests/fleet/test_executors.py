"""What does the work of a fleet may lose a worker, but no target; and it does not hold what is already written."""

from __future__ import annotations

import gc
import json
import os
import signal
import weakref
from collections.abc import Mapping
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest

from rlsaudit.fleet.executors import executor_of
from rlsaudit.fleet.result import Entry
from rlsaudit.fleet.run import run
from rlsaudit.fleet.targets import Target
from rlsaudit.fleet.work import Done


class Losing(Executor):
    """Loses its worker with every second target."""

    def __init__(self) -> None:
        self.count = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.count += 1
        if self.count % 2:
            future.set_result(Done(args[0].target.name, 0, "", 0.0, 1))
        else:
            future.set_exception(RuntimeError("the worker is gone"))
        return future


def test_a_lost_worker_loses_no_target() -> None:
    targets = [Target(f"t{number}", "x") for number in range(4)]
    found = list(run(targets, (), Losing(), {}, lambda done: None))
    assert sorted(one.name for one in found) == ["t0", "t1", "t2", "t3"]
    assert sum("the work could not be done: RuntimeError: the worker is gone" in one.sentence for one in found) == 2
    assert {one.outcome for one in found} == {"no verdict"}  # exit code 0 without evidence is no pass


class Files(dict[str, bytes]):
    """A report that can be watched."""


def test_reports_are_let_go_once_they_are_kept() -> None:
    class Full(Executor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_result(Done(args[0].target.name, 0, "", 0.0, 1, Files(report=b"large")))
            return future

    seen: list[weakref.ref[Mapping[str, bytes]]] = []
    targets = [Target(f"t{number}", "x") for number in range(20)]
    for _ in run(targets, (), Full(), {}, lambda done: seen.append(weakref.ref(done.files))):
        gc.collect()
        assert sum(one() is not None for one in seen) <= 2
    assert len(seen) == 20


@pytest.mark.slow
def test_a_dask_cluster_does_the_work() -> None:
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as cluster,
        executor_of(1, cluster.scheduler_address) as executor,
    ):
        assert list(executor.map(len, ["a", "bc"])) == [1, 2]


TOLD = {
    "population": ("relation", "kind", "class"),
    "cells": ("relation", "role", "command", "state"),
    "findings": ("check", "severity", "object", "role", "command", "relation", "confirmed"),
    "properties": ("property", "outcome"),
}
"""What evidence says apart from times, numbers and wordings."""


def told(files: Mapping[str, bytes]) -> dict[str, Any]:
    evidence = json.loads(files["evidence.json"])
    parts = {
        name: sorted(tuple(str(one[key]) for key in keys) for one in evidence[name]) for name, keys in TOLD.items()
    }
    return {**parts, "sentence": evidence["sentence"], "exit_code": evidence["exit_code"]}


def gathered(targets: list[Target], executor: Executor, kill: Any = None) -> tuple[dict[str, Any], list[Entry]]:
    """What each target's evidence says, and its entry; ``kill`` is called once the first is finished."""
    evidence: dict[str, Any] = {}
    found: list[Entry] = []

    def keep(done: Done) -> None:
        evidence[done.name] = told(done.files)

    for one in run(targets, (), executor, {}, keep):
        found.append(one)
        if len(found) == 1 and kill:
            kill()
    return evidence, found


@pytest.mark.nightly
def test_a_dask_cluster_with_a_killed_worker_gives_the_same(schemas: Path) -> None:
    distributed = pytest.importorskip("distributed")
    targets = [
        Target(f"t{number}", str(schemas / ("open.sql" if number == 3 else "sound.sql")), seed=1, budget="1")
        for number in range(6)
    ]
    with executor_of(2, None) as pool:
        local, entries = gathered(targets, pool)
    assert {name: one["exit_code"] for name, one in local.items()} == {t.name: int(t.name == "t3") for t in targets}
    killed: list[int] = []
    with (
        distributed.LocalCluster(n_workers=3, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):

        def kill() -> None:
            busy = [address for address, tasks in client.processing().items() if tasks]
            killed.append(client.run(os.getpid, workers=busy[:1])[busy[0]])
            os.kill(killed[0], signal.SIGKILL)

        with executor_of(1, cluster.scheduler_address) as executor:
            remote, same = gathered(targets, executor, kill)
    assert killed
    assert remote == local
    assert sorted((one.name, one.outcome) for one in same) == sorted((one.name, one.outcome) for one in entries)
