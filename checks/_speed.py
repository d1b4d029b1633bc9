"""What the checks of speed share: the conditions that rows are read through, and words and SQL about them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rlsaudit.checks._fixes import policy_name
from rlsaudit.checks._guarded import guarded
from rlsaudit.checks._planner import calls, looked_up

from rlsaudit.catalog.expression import Call, Expression, model
from rlsaudit.catalog.policies import policy_predicate
from rlsaudit.catalog.relations import COMMANDS, Policy, Relation
from rlsaudit.check import Subject, kept
from rlsaudit.finding import Severity
from rlsaudit.tenancy.model import ApplicationRole, Classified

FEW_ROWS = 1000
"""A table with fewer rows is read faster whole than by index."""

_STRING = re.compile(r"'(?:[^']|'')*'")


@dataclass(frozen=True, eq=False, slots=True)
class Filter:
    """The USING condition of a policy on tenant data that some application role meets."""

    relation: Relation
    classified: Classified
    policy: Policy
    predicate: Expression
    roles: tuple[ApplicationRole, ...]

    @property
    def key(self) -> str | None:
        """The tenant key column when the relation itself has it."""
        return None if self.classified.path else self.classified.key

    @property
    def name(self) -> str:
        return policy_name(self.policy, self.relation)


@kept
def filters(subject: Subject) -> tuple[Filter, ...]:
    """Every policy that rows are read through, once, with the application roles that it is for."""
    return tuple(_filters(subject))


def _filters(subject: Subject) -> Iterator[Filter]:
    catalog, visibility = subject.catalog, subject.visibility
    for relation in guarded(subject):
        met: dict[int, dict[int, ApplicationRole]] = {}
        for role in subject.tenancy.roles:
            if visibility.exempt(role.oid, relation) is not None:
                continue
            allowed = visibility.allowed(role.oid, relation)
            for command in COMMANDS:
                if command != "INSERT" and command in allowed:
                    for policy in visibility.policies(role.oid, relation, command):
                        met.setdefault(policy.oid, {})[role.oid] = role
        for policy in catalog.policies_of(relation.oid):
            predicate = policy_predicate(catalog, policy, "using")
            if policy.oid in met and predicate is not None:
                yield Filter(
                    relation, subject.tenancy.of(relation.oid), policy, predicate, tuple(met[policy.oid].values())
                )


@kept
def _known_lookups(subject: Subject) -> dict[tuple[Expression, str], bool]:
    return {}


def found_by_key(subject: Subject, one: Filter) -> bool:
    """Whether an index on the tenant key can find all rows that the condition admits."""
    if one.key is None:
        return False
    known, asked = _known_lookups(subject), (model(one.predicate), one.key)
    if asked not in known:
        known[asked] = looked_up(subject.catalog, one.predicate, one.key)
    return known[asked]


@kept
def _known_calls(subject: Subject) -> dict[Expression, dict[int, Call]]:
    return {}


def calls_by_row(subject: Subject, one: Filter) -> dict[int, Call]:
    """Function → a call of it that the planner keeps and evaluates row by row."""
    known, asked = _known_calls(subject), model(one.predicate)
    if asked not in known:
        known[asked] = calls(subject.catalog, one.predicate)
    return known[asked]


def small(relation: Relation) -> bool:
    """Known to hold few rows; a table that was never analysed is not."""
    return 0 < relation.estimated_rows < FEW_ROWS


def at_stake(relations: Iterable[Relation]) -> Severity:
    """``low``, or ``info`` when every table is known to be small."""
    return "info" if all(small(one) for one in relations) else "low"


def only(relations: Iterable[Relation]) -> str:
    """The relation's name when there is one, for ``Hit.relation``."""
    found = list({one.oid: one for one in relations}.values())
    return found[0].qualified if len(found) == 1 else ""


def evaluated_once(text: str, function: str) -> str:
    """The text of a condition with every call of ``function``, a qualified name, as ``(SELECT …)``."""
    plain = masked(text)
    found = list(re.finditer(rf'(?<![\w."]){re.escape(function)}\(', plain))
    for match in reversed(found):
        end = closing(plain, match.end() - 1)
        if not plain[: match.start()].rstrip().upper().endswith("SELECT") and end:
            text = f"{text[: match.start()]}(SELECT {text[match.start() : end]}){text[end:]}"
    return text


def masked(text: str) -> str:
    """The text with what stands in string constants blotted out."""
    return _STRING.sub(lambda match: "'" + "x" * (len(match.group()) - 2) + "'", text)


def closing(text: str, opened: int) -> int:
    """The position after the parenthesis that closes the one at ``opened``; 0 when there is none."""
    depth = 0
    for position in range(opened, len(text)):
        depth += (text[position] == "(") - (text[position] == ")")
        if depth == 0:
            return position + 1
    return 0
