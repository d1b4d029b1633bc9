"""From findings to one script that closes them: as the checks propose it, or tried on a scratch copy in rounds.

Two fixes may speak of one policy, so that the second is right only once the first is in force: a round applies at
most one fix to an object, then the catalog is read and checked again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import psycopg

from rlsaudit.allow import Allowed, apply
from rlsaudit.catalog.load import load_catalog
from rlsaudit.check import run_checks
from rlsaudit.finding import SEVERITIES, Finding, Severity, at_least
from rlsaudit.source.apply import apply_fix, statements
from rlsaudit.tenancy.infer import Declared, infer

MOST_ROUNDS = 20
Connect = Callable[[], psycopg.Connection[tuple[object, ...]]]


@dataclass(frozen=True)
class Step:
    """The fix of one finding."""

    finding: Finding
    statements: tuple[str, ...]
    """Empty when there is nothing that SQL could do."""
    error: str = ""
    """Why the server refused it, when it was tried."""


@dataclass(frozen=True)
class Mended:
    steps: tuple[Step, ...]
    left: tuple[Finding, ...] = field(default=())
    """Findings at or above the threshold that stand when all steps are done; only known when they were tried."""


def proposed(findings: Iterable[Finding], threshold: Severity) -> Mended:
    """Every fix at or above the threshold, worst first, none twice; nothing is run."""
    done: set[str] = set()
    steps = []
    for finding in _wanted(findings, threshold):
        new = tuple(one for one in statements(finding.fix) if one not in done)
        done.update(new)
        if new or not statements(finding.fix):
            steps.append(Step(finding, new))
    return Mended(tuple(steps))


def tried(connect: Connect, declared: Declared, allowed: tuple[Allowed, ...], threshold: Severity) -> Mended:
    """Apply fixes to a scratch copy until nothing is left or nothing helps."""
    steps: list[Step] = []
    done: set[str] = set()
    given_up: dict[str, Step] = {}
    left: tuple[Finding, ...] = ()
    for _ in range(MOST_ROUNDS):
        with connect() as connection:
            catalog = load_catalog(connection)
            found, _ = apply(run_checks(catalog, infer(catalog, declared), live=False), allowed)
            left = tuple(_wanted(found, threshold))
            before = len(steps)
            touched: set[str] = set()
            for finding in left:
                objects = {finding.object, finding.relation} - {""}
                if finding.fingerprint in given_up or objects & touched:
                    continue
                run, error = apply_fix(connection, finding.fix, done)
                touched |= objects
                if run:
                    done.update(run)
                    steps.append(Step(finding, run))
                else:
                    given_up[finding.fingerprint] = Step(finding, (), error)
            connection.commit()
        if len(steps) == before:
            break
    standing = {finding.fingerprint for finding in left}
    return Mended((*steps, *(step for name, step in given_up.items() if name in standing)), left)


def script(mended: Mended, source: str) -> str:
    """One transaction that applies the steps in order; what SQL cannot do stands as a remark."""
    lines = [
        f"-- Fixes for {_one_line(source)}. Read them: revoking a privilege may take from the application what it uses."
    ]
    lines += ["BEGIN;", ""]
    for step in mended.steps:
        finding = step.finding
        lines.append(f"-- {finding.check} {finding.severity}, {_one_line(finding.object)}: {_one_line(finding.title)}")
        if step.error:
            lines.append(f"-- not applied, the server refused it: {_one_line(step.error)}")
        elif not step.statements:
            lines += [f"-- by hand: {_one_line(finding.fix or finding.message)}"]
        lines += [*step.statements, ""]
    return "\n".join((*lines, "COMMIT;", ""))


def _wanted(findings: Iterable[Finding], threshold: Severity) -> list[Finding]:
    found = [f for f in findings if f.status == "open" and at_least(f.severity, threshold)]
    return sorted(found, key=lambda f: (SEVERITIES.index(f.severity), f.check, f.object, f.command))


def _one_line(text: str) -> str:
    """Names are hostile: a line break in one would end the comment."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
