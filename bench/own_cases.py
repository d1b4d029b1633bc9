"""Cases that anyone has: the demo schemas, the leaks that the tests plant, and one generated database with many of them.

    python bench/own_cases.py DIRECTORY      write them as a directory of cases, for ground_truth.py and peers.py

Each is a pair: a schema with a leak and its nearest sound neighbour.  They are rlsaudit's own tests, so that its own
figures on them say that it still does what it did, and the others' how much of the same they find.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import from_tests

from rlsaudit.demo import demos, path

_MADE = re.compile(
    r"CREATE (?:OR REPLACE )?(?:TABLE|(?:MATERIALIZED )?VIEW|FUNCTION|TRIGGER) (?:shop\.)?(\w+)", re.IGNORECASE
)
_POINTS_AT = {
    "role with a tenant": ["docs"], "line that a rule writes": ["feed", "docs"], "function with a tenant": ["bodies"],
    "view without a barrier": ["mine"], "queue without a key": ["outbox"], "answer kept for the next": ["cache", "report"],
    "rows with an empty key": ["docs", "tenants"], "warning of a policy": ["items", "mine"],
    "context under the backend's number": ["items", "acting", "act", "actor"],
}  # fmt: skip
"""Objects at fault of the kinds whose leak is not in ``items``."""
_EVERYWHERE = ("context for the whole session", "trigger that copies to another tenant")
"""Leaks that have a say in tables beside their own."""


@dataclass(frozen=True)
class Pair:
    name: str
    leaky: str
    sound: str
    role: str
    owner: str
    objects: tuple[str, ...]


def pairs() -> Iterator[Pair]:
    """All of them, by name."""
    files = [(demo, path(demo).read_text(encoding="utf-8")) for demo in demos()]
    for (written, leaky), (_, sound) in zip(files[::2], files[1::2], strict=True):
        named = {word for flaw in written.flaws for word in re.findall(r"[a-z_]{4,}", flaw)}
        made = re.findall(r"CREATE [\w ]*?(?:TABLE|VIEW|FUNCTION) (?:IF NOT EXISTS )?([\w.]+)", leaky)
        objects = [name for name in made if name.split(".")[-1] in named]
        yield Pair(f"demo-{written.number}", leaky, sound, "", "", tuple(objects))
    kinds = from_tests("quality/test_kinds.py").KINDS
    for name, (leaky, sound, _, _) in kinds.items():
        yield Pair(f"kind {name}", leaky, sound, "k_app", "", tuple(_POINTS_AT.get(name, ["items"])))
    base = from_tests("quality/conftest.py").BASE
    for one in from_tests("quality/test_planted_leaks.py").PLANTED:
        at_fault = ("shop.notes", one.object.partition("(")[0], one.relation)
        yield Pair(f"planted {one.name}", base + one.bad, base + one.bad + one.mend, "q_app", "q_owner", at_fault)


def write(directory: Path) -> None:
    """A folder for each half of each pair, as ground_truth.py reads them."""
    for pair in pairs():
        for vulnerable, script in ((True, pair.leaky), (False, pair.sound)):
            folder = directory / re.sub(r"\W+", "-", f"{pair.name} {'' if vulnerable else 'sound'}").strip("-")
            folder.mkdir(parents=True)
            (folder / "schema.sql").write_text(script, encoding="utf-8")
            (folder / "case.toml").write_text(_told(pair, vulnerable), encoding="utf-8")


def _told(pair: Pair, vulnerable: bool) -> str:
    told: dict[str, Any] = {
        "vulnerable": vulnerable,
        "severity": "medium" if vulnerable else "low",
        "threat": pair.name.partition(" ")[0],
        "objects": list(pair.objects),
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in told.items()]
    named = {"app_role": pair.role, "owner_role": pair.owner}
    return "\n".join([*lines, "[env]", *(f"{name} = {json.dumps(role)}" for name, role in named.items() if role), ""])


@dataclass(frozen=True)
class Generated:
    script: str
    faulty: tuple[frozenset[str], ...]
    """For each planted leak the names of the objects at fault."""
    sound: frozenset[str]
    """Names of the tables in which nothing is wrong."""


def generated(tables: int = 50, leaks: int = 15, seed: int = 1) -> Generated:
    """One database of ``tables`` tables like the tests' own, with ``leaks`` of its planted leaks in tables of their own.

    The policy of every second table is for the application's role, the others' for all, as both are usual.
    """
    pick = random.Random(seed)
    planted = [one for one in from_tests("quality/test_planted_leaks.py").PLANTED if one.name not in _EVERYWHERE]
    chosen = pick.sample(planted, min(leaks, len(planted)))
    places = pick.sample(range(tables), len(chosen))
    head, notes, tail = _base()
    to_all, to_role = (f"{notes}{tail.replace(' USING', f'{to} USING')}" for to in ("", " TO q_app"))
    parts, faulty = [head], []
    for number in range(tables):
        parts += ["SET ROLE q_owner;", _renamed(to_role if number % 2 else to_all, number, {"notes"})]
        if number in places:
            one = chosen[places.index(number)]
            made = {"notes", *_MADE.findall(one.bad)}
            parts.append(_renamed(one.bad, number, made))
            names = {one.object.partition("(")[0], one.relation} | {"notes"}
            faulty.append(frozenset(f"{name.removeprefix('shop.')}_{number:02}" for name in names))
    wrong = frozenset[str]().union(*faulty)
    every = {f"notes_{number:02}" for number in range(tables)} | {"tenants"}
    return Generated("\n".join(parts), tuple(faulty), frozenset(every - wrong))


def _renamed(script: str, number: int, names: set[str]) -> str:
    """The script with a number behind each of the names, so that it can stand beside its likes."""
    longest = sorted(names, key=len, reverse=True)
    return re.sub(rf"\b({'|'.join(longest)})\b", rf"\g<1>_{number:02}", script)


def _base() -> tuple[str, str, str]:
    """The tests' sound schema: all but the table notes, that table, and what is said about it."""
    statements = [f"{one.strip()};" for one in from_tests("quality/conftest.py").BASE.split(";") if one.strip()]
    about = [one for one in statements if re.search(r"\bshop\.notes\b", one)]
    head = [one for one in statements if one not in about]
    return "\n".join(head) + "\n", about[0] + "\n", "\n".join(about[1:]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    write(parser.parse_args().directory)


if __name__ == "__main__":
    main()
