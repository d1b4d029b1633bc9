"""What a check file imports: the decorator, what a check yields, and the registry that finds them all."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, wraps
from importlib.metadata import entry_points
from typing import TypeVar

from rlsaudit.catalog.identifiers import literal, qualified, quote, remark
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.visibility import Visibility, visibility_of
from rlsaudit.collecting import without_collecting
from rlsaudit.errors import UsageError
from rlsaudit.finding import SEVERITIES, Finding, Severity
from rlsaudit.tenancy.model import Tenancy

__all__ = [
    "Catalog", "Check", "Example", "Hit", "Subject", "Tenancy", "Visibility", "check", "kept", "literal", "qualified", "quote",
    "registry", "remark", "run_checks",
]  # fmt: skip

_ID = re.compile(r"RLS\d{3}\Z")
_STANDARD = re.compile(r"(SOC 2 CC\d\.\d|ISO 27001 A\.\d\.\d+|NIST 800-53 [A-Z]{2}-\d+|CWE-\d+|CVE-\d{4}-\d+)\Z")


@dataclass(frozen=True, slots=True)
class Example:
    """SQL of a small schema: ``setup``, then either ``bad`` or ``good``.  Docs and tests use the same text."""

    bad: str
    good: str
    setup: str = ""


@dataclass(frozen=True, slots=True)
class Hit:
    """One thing a check found.  The engine stamps id, default severity and fingerprint."""

    object: str
    detail: str
    fix: str = ""
    severity: Severity | None = None
    """Overrides the check's own, by consequence in this database."""
    relation: str = ""
    command: str = ""
    role: str = ""


@dataclass(frozen=True)
class Subject:
    """What a check looks at."""

    catalog: Catalog
    tenancy: Tenancy
    visibility: Visibility
    live: bool = True
    """False when the server is rlsaudit's own scratch server, whose version and settings say nothing of the user's."""
    answers: dict[object, object] = field(default_factory=dict, init=False, compare=False, repr=False)
    """Of the functions that are ``kept``; another subject, also one made by ``replace``, has answers of its own."""


Answer = TypeVar("Answer")


def kept(compute: Callable[[Subject], Answer]) -> Callable[[Subject], Answer]:
    """What several checks ask of one subject: computed when first asked for, and kept with it."""

    @wraps(compute)
    def ask(subject: Subject) -> Answer:
        try:
            return subject.answers[compute]  # type: ignore[return-value]
        except KeyError:
            found = subject.answers[compute] = compute(subject)
            return found

    return ask


Runner = Callable[[Subject], Iterable[Hit]]


@dataclass(frozen=True)
class Check:
    id: str
    title: str
    severity: Severity
    rationale: str
    standards: tuple[str, ...]
    examples: tuple[Example, ...]
    run: Runner
    covers: tuple[str, ...] = ()
    """What it looks for, a line each, where that is a list; in place of examples when no SQL can show it."""


def check(
    id: str,  # noqa: A002 - the name users of the decorator expect
    *,
    title: str,
    severity: Severity,
    rationale: str,
    standards: Iterable[str],
    examples: Iterable[Example] = (),
    covers: Iterable[str] = (),
) -> Callable[[Runner], Check]:
    """Declare a check.  Raises UsageError at import when the metadata is wrong, with the remedy."""
    standards, examples, listed = tuple(standards), tuple(examples), tuple(covers)
    if not _ID.match(id):
        raise UsageError(f"check id {id!r}: write RLS and three digits, such as RLS104")
    if severity not in SEVERITIES:
        raise UsageError(f"check {id}: severity {severity!r} is unknown; use one of {', '.join(SEVERITIES)}")
    if not examples and not listed:
        raise UsageError(
            f"check {id}: give at least one Example(bad=…, good=…); it is the docs page and the test. A check of what no SQL"
            " can change, such as the server's version, says in covers=… what it looks for."
        )
    for standard in standards:
        if not _STANDARD.match(standard):
            raise UsageError(
                f"check {id}: standard {standard!r} is not of a known form, such as 'SOC 2 CC6.1' or 'CWE-284'"
            )

    def declare(run: Runner) -> Check:
        return Check(id, title, severity, rationale, standards, examples, run, listed)

    return declare


@cache
def registry() -> tuple[Check, ...]:
    """Every check, by id: the files of rlsaudit.checks and the entry points of group ``rlsaudit.checks``.

    Raises UsageError when two checks share an id.
    """
    package = importlib.import_module("rlsaudit.checks")
    modules = [importlib.import_module(f"rlsaudit.checks.{m.name}") for m in pkgutil.iter_modules(package.__path__)]
    found = [value for module in modules for value in vars(module).values() if isinstance(value, Check)]
    found += [value for entry in entry_points(group="rlsaudit.checks") if isinstance(value := entry.load(), Check)]
    checks: dict[str, Check] = {}
    for one in found:
        if checks.setdefault(one.id, one) is not one:
            raise UsageError(
                f"two checks share the id {one.id}: {checks[one.id].title!r} and {one.title!r}; renumber one"
            )
    return tuple(checks[name] for name in sorted(checks))


def run_checks(catalog: Catalog, tenancy: Tenancy, *, live: bool = True) -> tuple[Finding, ...]:
    """Findings of every check.  A check that raises becomes a finding of its own and the rest still run.

    ``live`` is False for a catalog of SQL files loaded into a scratch server.
    """
    subject = Subject(catalog, tenancy, visibility_of(catalog), live)
    with without_collecting():
        return tuple(finding for one in registry() for finding in _run(one, subject))


def _run(one: Check, subject: Subject) -> Iterator[Finding]:
    try:
        hits = list(one.run(subject))
    except Exception as error:  # noqa: BLE001 - a check's own bug is reported and never loses the run
        yield Finding(
            check=one.id,
            source="check",
            title="Check crashed",
            severity="high",
            object=f"check {one.id}",
            message=f"{one.title}: the check raised {type(error).__name__}: {error}. Nothing is known about what it covers.",
        )
        return
    for hit in hits:
        yield Finding(
            check=one.id,
            source="check",
            title=one.title,
            severity=hit.severity or one.severity,
            object=hit.object,
            message=hit.detail,
            relation=hit.relation,
            command=hit.command,
            role=hit.role,
            fix=hit.fix,
            rationale=one.rationale,
            standards=one.standards,
        )
