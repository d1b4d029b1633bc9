"""pytest plugin: the cells of a scan as test items, and a seeded scratch copy for a team's own tests.

``pytest --rlsaudit SOURCE`` adds an item for every case of the JUnit report.  The fixture ``rlsaudit`` gives a
``Laboratory`` over SOURCE, which may also stand in the ini file as ``rlsaudit_source``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

if TYPE_CHECKING:
    from rlsaudit.options import Options
    from rlsaudit.probe.laboratory import Laboratory

_DOCUMENT = pytest.StashKey[str]()
_WORKER = "rlsaudit_junit"
_HEADING = "row-level security"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("rlsaudit", "row-level security (rlsaudit)")
    group.addoption("--rlsaudit", metavar="SOURCE", help="Scan SOURCE and make each cell of the result a test item.")
    group.addoption("--rlsaudit-config", metavar="FILE", help="rlsaudit.toml to use. Default: the one beside pytest's.")
    group.addoption(
        "--rlsaudit-role", metavar="ROLE", action="append", default=[], help="Application role; repeatable."
    )
    group.addoption("--rlsaudit-budget", metavar="TIME", help="Time for random workloads. Default: 5s.")
    parser.addini("rlsaudit_source", "SOURCE of the rlsaudit fixture, where --rlsaudit does not name one.")


def pytest_configure(config: pytest.Config) -> None:
    """Under pytest-xdist the workers are given the result of one scan, so that all collect the same items."""
    given: dict[str, object] | None = getattr(config, "workerinput", None)
    if given is not None:
        config.stash[_DOCUMENT] = str(given.get(_WORKER, ""))


def _document(config: pytest.Config) -> str:
    """The result of the scan, which is made once, and not while pytest still starts: Hypothesis objects to that."""
    source = config.getoption("--rlsaudit")
    if _DOCUMENT not in config.stash:
        config.stash[_DOCUMENT] = _scanned(config, str(source)) if source else ""
    return config.stash[_DOCUMENT]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: object) -> None:
    """Of pytest-xdist, on its controller: what a worker is told."""
    config: pytest.Config = getattr(node, "config")  # noqa: B009 - the type belongs to a plugin that may not be there
    getattr(node, "workerinput")[_WORKER] = _document(config)  # noqa: B009


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    document = _document(config)
    if not document:
        return
    root = Scan.from_parent(session, name="rlsaudit", nodeid="rlsaudit")
    for suite in ET.fromstring(document):  # noqa: S314 - our own document, no stranger's
        parent = Suite.from_parent(root, name=suite.get("name", ""))
        for case in suite:
            about = case.get("classname", "")
            name = case.get("name", "") if about == suite.get("name") else f"{about}: {case.get('name')}"
            items.append(Case.from_parent(parent, name=name, case=case))


class Scan(pytest.Collector):
    """The scan; its items are added as they are, nothing is collected."""

    def collect(self) -> list[pytest.Item]:
        return []


class Suite(pytest.Collector):
    """A relation, or a part of the audit."""

    def collect(self) -> list[pytest.Item]:
        return []


class Failed(Exception):
    """The text of the report on one case."""


class Case(pytest.Item):
    """A cell, a check or a property: passes, fails or is skipped as in the JUnit report."""

    def __init__(self, *, case: ET.Element, **given: object) -> None:
        super().__init__(**given)  # type: ignore[arg-type]
        self._case = case

    def runtest(self) -> None:
        for kind in ("failure", "error"):
            found = self._case.find(kind)
            if found is not None:
                raise Failed(found.text or found.get("message", ""))
        skipped = self._case.find("skipped")
        if skipped is not None:
            pytest.skip(skipped.get("message", ""))
        said = self._case.findtext("system-out")
        if said:
            self.add_report_section("call", "rlsaudit", said)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> str:  # noqa: ARG002
        return str(excinfo.value) if isinstance(excinfo.value, Failed) else str(super().repr_failure(excinfo))

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.config.rootpath, None, f"{_HEADING}: {self.parent.name if self.parent else ''} {self.name}"


@pytest.fixture(scope="session")
def rlsaudit(request: pytest.FixtureRequest) -> Iterator[Laboratory]:
    """A scratch copy of SOURCE in which several tenants have rows; see ``rlsaudit.probe.laboratory.Laboratory``."""
    from rlsaudit.errors import RlsauditError  # noqa: PLC0415 - loaded only where it is used: pytest starts with us
    from rlsaudit.opening import DATABASE, open_source  # noqa: PLC0415
    from rlsaudit.probe.laboratory import laboratory  # noqa: PLC0415
    from rlsaudit.source.statements import numbered  # noqa: PLC0415

    source = request.config.getoption("--rlsaudit") or request.config.getini("rlsaudit_source")
    if not source:
        raise pytest.UsageError(
            "the fixture rlsaudit needs a SOURCE: --rlsaudit SOURCE, or rlsaudit_source in the ini file"
        )
    try:
        with open_source(_options(request.config, str(source)), _silent) as opened:
            if opened.server is None or opened.scratch_catalog is None or opened.scratch_tenancy is None:
                raise pytest.UsageError(f"{source}: no scratch copy can be made of it")
            with laboratory(opened.server, DATABASE, opened.scratch_catalog, opened.scratch_tenancy, numbered) as made:
                yield made
    except RlsauditError as error:
        raise pytest.UsageError(str(error)) from error


def _scanned(config: pytest.Config, source: str) -> str:
    """The JUnit report of a scan.  Raises pytest.UsageError where no verdict can be given."""
    from rlsaudit.errors import RlsauditError  # noqa: PLC0415
    from rlsaudit.report import chosen  # noqa: PLC0415
    from rlsaudit.scan import scan  # noqa: PLC0415

    try:
        return chosen(("junit",))[0].write(scan(_options(config, source), _silent).report)
    except RlsauditError as error:
        raise pytest.UsageError(f"rlsaudit: {error}") from error


def _options(config: pytest.Config, source: str) -> Options:
    from rlsaudit.cli.common import merged  # noqa: PLC0415

    file = config.getoption("--rlsaudit-config")
    return merged(
        source, roles=tuple(config.getoption("--rlsaudit-role")), config_file=Path(str(file)) if file else None,
        pg_bin=None, quiet=True, budget=config.getoption("--rlsaudit-budget"),
    ).options  # fmt: skip


def _silent(what: str, done: int, of: int) -> None:
    """pytest says what there is to say."""
