"""What a fleet's run found: one entry for each target, and what they come to.  Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from rlsaudit.finding import SEVERITIES
from rlsaudit.fleet.targets import Target
from rlsaudit.fleet.work import Done
from rlsaudit.source.dsn import redact

EVIDENCE = "evidence.json"
DOCUMENT = "fleet.json"
REPORT = "report.html"
_RANKS = {"no verdict": 0, "exceptions": 1, "clean": 2}

Outcome = Literal["no verdict", "exceptions", "clean"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One target and its result."""

    name: str
    source: str
    """Without a password."""
    outcome: Outcome
    exit_code: int
    sentence: str
    started: str = ""
    seconds: float = 0.0
    tries: int = 0
    findings: tuple[tuple[str, int], ...] = ()
    """Open findings by severity, worst first."""
    cells: tuple[tuple[str, int], ...] = ()
    """State → number."""
    relations: int = 0
    stands: bool = False
    """The result of an earlier run, whose catalog and configuration have not changed."""
    asked: str = ""
    """sha256 over the target, its files and its options."""
    catalog: str = ""
    """Fingerprint of the catalog."""


@dataclass(frozen=True, slots=True)
class Fleet:
    tool_version: str
    started: str
    seconds: float
    counted: int
    """Targets that were to be tested; len(entries), or the run is not trustworthy."""
    entries: tuple[Entry, ...]
    """Worst first."""

    @property
    def exit_code(self) -> int:
        """3 when a target has no verdict or is missing, else 1 when one has exceptions, else 0."""
        outcomes = {entry.outcome for entry in self.entries}
        if "no verdict" in outcomes or len(self.entries) != self.counted or not self.entries:
            return 3
        return 1 if "exceptions" in outcomes else 0

    @property
    def sentence(self) -> str:
        tally = Counter(entry.outcome for entry in self.entries)
        said = [f"{number} {outcome}" for outcome in _RANKS if (number := tally[outcome])]  # type: ignore[index]
        missing = self.counted - len(self.entries)
        return f"{self.counted} targets: {', '.join([*said, *([f'{missing} missing'] if missing else [])])}"


def entry(target: Target, done: Done, asked: str) -> Entry:
    """What one target's files say; a run without evidence has no verdict, whatever it exited with."""
    plain = Entry(
        target.name, redact(target.source), "no verdict", done.exit_code, "", seconds=done.seconds, tries=done.tries
    )
    try:
        evidence = json.loads(done.files[EVIDENCE])
        found = Counter(
            f["severity"] for f in evidence["findings"] if f["status"] == "open" and f.get("age") != "carried"
        )
        states = Counter(cell["state"] for cell in evidence["cells"])
        whole = replace(
            plain,
            sentence=str(evidence["sentence"]),
            started=str(evidence["timing"]["started"]),
            findings=tuple((severity, found[severity]) for severity in SEVERITIES if found[severity]),
            cells=tuple(sorted(states.items())),
            relations=len(evidence["population"]),
            asked=asked,
            catalog=str(evidence["provenance"]["catalog_fingerprint"]),
        )
    except (KeyError, ValueError, TypeError):
        last = (
            done.said.splitlines()[-1].removeprefix("rlsaudit: ")
            if done.said
            else f"exit code {done.exit_code} and no evidence"
        )
        return replace(plain, sentence=last, exit_code=done.exit_code or 3)
    if done.exit_code != evidence["exit_code"]:
        return replace(whole, sentence=f"{done.said or 'ended early'}; until then: {whole.sentence}")
    outcome: Outcome = "clean" if done.exit_code == 0 else "exceptions" if done.exit_code == 1 else "no verdict"
    return replace(whole, outcome=outcome)


def not_run(target: Target) -> Entry:
    """A target that a signal left unfinished."""
    return Entry(target.name, redact(target.source), "no verdict", 3, "interrupted before it was finished")


def ordered(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Worst first: no verdict, then by the worst findings and the gaps, then by name."""

    def rank(one: Entry) -> tuple[object, ...]:
        found, cells = dict(one.findings), dict(one.cells)
        return _RANKS[one.outcome], *(-found.get(s, 0) for s in SEVERITIES), -cells.get("not covered", 0), one.name

    return tuple(sorted(entries, key=rank))


def document(fleet: Fleet) -> str:
    """``fleet.json``, with a line for each target: it is written anew whenever one is finished."""
    told = {"schema_version": 1, "exit_code": fleet.exit_code, "sentence": fleet.sentence}
    told |= {name: getattr(fleet, name) for name in ("tool_version", "started", "seconds", "counted")}
    names = [field.name for field in fields(Entry)]
    entries = (json.dumps({name: getattr(one, name) for name in names}, ensure_ascii=False) for one in fleet.entries)
    members = [f'"{name}": {json.dumps(value, ensure_ascii=False)}' for name, value in told.items()]
    lines = ",\n  ".join(entries)
    return "{\n " + ",\n ".join([*members, f'"entries": [\n  {lines}\n ]']) + "\n}\n"


def earlier(text: str) -> Mapping[str, Entry]:
    """The entries of a ``fleet.json``, by name; those that cannot be read are left out."""
    try:
        given: list[dict[str, Any]] = json.loads(text)["entries"]
        return {one["name"]: _entry(one) for one in given}
    except (ValueError, KeyError, TypeError):
        return {}


def _entry(given: dict[str, Any]) -> Entry:
    pairs = {key: tuple(tuple(pair) for pair in given[key]) for key in ("findings", "cells")}
    return Entry(**given | pairs)
