"""One scan in several parts: which relations a part attacks, what it writes, and how parts become one result again.

A part gives no verdict.  The verdict is that of the whole, assembled from the catalog, which is the same for all, and
from what each part's probe found; a part that is missing, doubled or of another run is an error.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rlsaudit.catalog.model import Catalog
from rlsaudit.doubt import Settled
from rlsaudit.errors import NotTrustworthy, UsageError
from rlsaudit.finding import Finding, PropertyResult
from rlsaudit.probe.attacks.sweep import Focus
from rlsaudit.probe.result import ProbeResult

FILENAME = "shard.json"
_OUTCOMES = ("leak", "not covered", "waived", "held")


@dataclass(frozen=True, slots=True)
class Shard:
    """Part ``number`` of ``of``, from 1."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def has(self, name: str) -> bool:
        """Whether the part attacks what is called so: by the name's hash, so that a new relation moves no other."""
        return int(hashlib.sha256(name.encode()).hexdigest()[:12], 16) % self.of == self.number - 1


def parse(text: str) -> Shard:
    """``3/8``.  Raises UsageError for anything else."""
    found = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"--shard {text}: give the number of the part and of all, such as 3/8")
    return Shard(int(found[1]), int(found[2]))


def focus(shard: Shard, catalog: Catalog) -> Focus:
    """What the part attacks.  A partition goes with the table at the head of its tree."""
    return Focus(
        frozenset(one.qualified for one in catalog.relations if shard.has(_head(catalog, one.oid))),
        frozenset(one.signature for one in catalog.functions if shard.has(one.signature)),
    )


def _head(catalog: Catalog, oid: int) -> str:
    relation = catalog.relation(oid)
    while relation.is_partition and relation.parents:
        relation = catalog.relation(relation.parents[0])
    return relation.qualified


@dataclass(frozen=True)
class Part:
    """``shard.json``: what one part's probe found, and what it was a part of."""

    shard: str
    tool_version: str
    package_hash: str
    source: str
    preset: str
    live: bool
    """Whether the catalog is that of the user's own server."""
    configuration_hash: str
    seed: int
    scratch_version: str
    started: str
    seconds: float
    catalog_fingerprint: str
    catalog: str
    """The snapshot, as ``rlsaudit snapshot`` writes it."""
    relations: tuple[str, ...]
    """What this part attacked."""
    functions: tuple[str, ...]
    notes: tuple[str, ...]
    places: tuple[tuple[str, str, int], ...]
    """Object, file and line of the SQL that defined it last."""
    probed: ProbeResult
    """Without ``settled``, which stands beside it."""
    settled: tuple[tuple[str, str, str, str, bool], ...]
    """Relation, role, command, what was tried, and whether it takes another session."""


def checked(parts: Sequence[Part], catalog: Catalog) -> tuple[Part, ...]:
    """The parts in order.

    Raises NotTrustworthy when one is missing or doubled, they are not of one run, or together they did not attack all.
    """
    shards = [parse(part.shard) for part in parts]
    of = {shard.of for shard in shards}
    if len(of) != 1:
        raise NotTrustworthy(f"parts of different runs: {', '.join(sorted(part.shard for part in parts))}")
    numbers = [shard.number for shard in shards]
    whole = range(1, of.pop() + 1)
    if missing := [str(number) for number in whole if number not in numbers]:
        raise NotTrustworthy(f"part {', '.join(missing)} of {len(whole)} is missing, so not everything was tested")
    if doubled := sorted({number for number in numbers if numbers.count(number) > 1}):
        raise NotTrustworthy(f"part {', '.join(map(str, doubled))} was given twice")
    for name, same in (
        ("catalog", {part.catalog_fingerprint for part in parts}),
        ("configuration", {part.configuration_hash for part in parts}),
        ("version of rlsaudit", {(part.tool_version, part.package_hash) for part in parts}),
    ):
        if len(same) != 1:
            raise NotTrustworthy(f"the parts do not have the same {name}, so they are not of one run")
    _all_attacked(parts, catalog)
    return tuple(sorted(parts, key=lambda part: parse(part.shard).number))


def _all_attacked(parts: Sequence[Part], catalog: Catalog) -> None:
    for what, wanted, given in (
        ("relation", [one.qualified for one in catalog.relations], [name for part in parts for name in part.relations]),
        ("function", [one.signature for one in catalog.functions], [name for part in parts for name in part.functions]),
    ):
        if sorted(wanted) != sorted(given):
            odd = sorted(set(wanted) ^ set(given)) or sorted({name for name in given if given.count(name) > 1})
            raise NotTrustworthy(f"the parts together do not attack every {what} once: {odd[0] if odd else ''}")


def joined(parts: Sequence[Part]) -> ProbeResult:
    """What one probe of everything would have given."""
    probes = [part.probed for part in parts]
    settled = {(r, role, c): Settled(said, opened) for part in parts for r, role, c, said, opened in part.settled}
    return replace(
        probes[0],
        cells=tuple(cell for one in probes for cell in one.cells),
        findings=_distinct(finding for one in probes for finding in one.findings),
        properties=_properties([result for one in probes for result in one.properties]),
        notes=tuple(dict.fromkeys(note for one in probes for note in one.notes)),
        schema=next((one.schema for one in probes if one.schema), ""),
        statements=sum(one.statements for one in probes),
        programs=sum(one.programs for one in probes),
        blind=any(one.blind for one in probes),
        unseeded=next((one.unseeded for one in probes if one.unseeded), ""),
        interrupted=any(one.interrupted for one in probes),
        lost=next((one.lost for one in probes if one.lost), ""),
        settled=settled,
        not_tried=tuple(dict.fromkeys(said for one in probes for said in one.not_tried)),
    )


def _distinct(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """What several parts saw is one finding: a context that outlives its transaction, a privilege to TRUNCATE."""
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for one in findings:
        everywhere = one.property == "carryover" or one.command == "TRUNCATE"
        key = (one.check, one.title, one.role, *one.roles) if everywhere else (one.fingerprint,)
        groups.setdefault(key, []).append(one)
    return tuple(_one(group) for group in groups.values())


def _one(group: Sequence[Finding]) -> Finding:
    first = group[0]
    places = dict.fromkeys(place for one in group for place in (one.object, *one.also))
    return replace(first, also=tuple(place for place in places if place != first.object)) if len(group) > 1 else first


def _properties(results: Sequence[PropertyResult]) -> tuple[PropertyResult, ...]:
    groups: dict[tuple[str, str], list[PropertyResult]] = {}
    for result in results:
        groups.setdefault((result.property, result.role), []).append(result)
    found = []
    for results_of_parts in groups.values():
        # A part without a guarded relation has nobody alive and nothing to detect: what another part did stands.
        group = [result for result in results_of_parts if result.trials] or results_of_parts
        about_itself = group[0].property in ("alive", "detector")
        order = _OUTCOMES[::-1] if about_itself else _OUTCOMES
        worst = min(group, key=lambda result: order.index(result.outcome))
        reasons = dict.fromkeys(result.reason for result in group if about_itself or result.outcome == worst.outcome)
        found.append(replace(worst, trials=sum(result.trials for result in group), reason="; ".join(reasons)))
    return tuple(found)
