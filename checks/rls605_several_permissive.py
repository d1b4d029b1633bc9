"""Several permissive policies for one role and command."""

from collections.abc import Iterator
from dataclasses import dataclass

from rlsaudit.checks._examples import SOUND, TENANT
from rlsaudit.checks._fixes import in_order, listed, several
from rlsaudit.checks._guarded import guarded
from rlsaudit.checks._speed import only

from rlsaudit.catalog.relations import COMMANDS, Policy, Relation
from rlsaudit.check import Example, Hit, Subject, check, quote, remark


@check(
    "RLS605",
    title="Several permissive policies for one role and command",
    severity="info",
    rationale=(
        "Permissive policies are joined by OR: each is evaluated for the rows that the others refuse, an index serves"
        " only if it serves all of them, and the loosest decides. One policy that says it all is faster and can be read."
    ),
    standards=("ISO 27001 A.8.6", "NIST 800-53 SC-5", "CWE-405"),
    examples=(
        Example(
            setup=SOUND,
            bad=f"CREATE POLICY large ON invoices USING ({TENANT} AND amount > 1000);",
            good=f"CREATE POLICY not_huge ON invoices AS RESTRICTIVE USING (amount < 1000000 OR {TENANT});",
        ),
    ),
)
def several_permissive(subject: Subject) -> Iterator[Hit]:
    alike: dict[tuple[str, ...], list[_Overlap]] = {}
    for one in _overlaps(subject):
        alike.setdefault(tuple(sorted(policy.name for policy in one.policies)), []).append(one)
    for names, overlaps in alike.items():
        relations = [one.relation for one in overlaps]
        said = several(map(quote, names))
        commands = in_order({command for one in overlaps for command in one.commands})
        yield Hit(
            only(relations) or f"policies {said}",
            f"Of the permissive policies {said} on {several(one.qualified for one in relations)} several apply at once to"
            f" {listed(commands)} of {several(role for one in overlaps for role in one.roles)}: the server evaluates them one"
            " after the other and admits what any of them admits.",
            "\n".join(_merged(one) for one in overlaps),
            relation=only(relations),
        )


@dataclass(frozen=True)
class _Overlap:
    """The permissive policies of one table that meet another one for some role and command."""

    relation: Relation
    policies: tuple[Policy, ...]
    commands: frozenset[str]
    roles: tuple[str, ...]


def _overlaps(subject: Subject) -> Iterator[_Overlap]:
    visibility = subject.visibility
    for relation in guarded(subject):
        met: dict[int, Policy] = {}
        commands: set[str] = set()
        roles: list[str] = []
        for role in subject.tenancy.roles:
            for command in COMMANDS if visibility.exempt(role.oid, relation) is None else ():
                policies = [p for p in visibility.policies(role.oid, relation, command) if p.permissive]
                if len(policies) > 1 and visibility.may(role.oid, relation, command):
                    met |= {policy.oid: policy for policy in policies}
                    commands.add(command)
                    roles.append(role.name)
        if met:
            yield _Overlap(relation, tuple(met.values()), frozenset(commands), tuple(roles))


def _merged(one: _Overlap) -> str:
    """One policy in place of those that are for the same command and the same roles; the rest is for people."""
    groups: dict[tuple[str, frozenset[int]], list[Policy]] = {}
    for policy in one.policies:
        groups.setdefault((policy.command, frozenset(policy.roles)), []).append(policy)
    lines = [line for policies in groups.values() if len(policies) > 1 for line in _joined(one.relation, policies)]
    if len(groups) > 1:
        names = several(quote(policies[0].name) for policies in groups.values())
        lines.append(remark(f"{one.relation.qualified}: then let {names} be for different commands or roles"))
    return "\n".join(lines)


def _joined(relation: Relation, policies: list[Policy]) -> Iterator[str]:
    first, *rest = policies
    using = [f"({one.using})" for one in policies if one.using is not None]
    checks = [f"({one.check or one.using})" for one in policies if one.check or one.using]
    parts = [f"USING ({' OR '.join(using)})"] if using else []
    if any(one.check for one in policies):
        parts.append(f"WITH CHECK ({' OR '.join(checks)})")
    yield from (f"DROP POLICY {quote(one.name)} ON {relation.qualified};" for one in rest)
    yield f"ALTER POLICY {quote(first.name)} ON {relation.qualified} {' '.join(parts)};"
