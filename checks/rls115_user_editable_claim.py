"""Policies that believe what users write about themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rlsaudit.checks._binding import reach
from rlsaudit.checks._claims import CLAIM, CLAIMS, claims_read
from rlsaudit.checks._fixes import listed, policy_name, several
from rlsaudit.checks._reading import Shape, Use, uses
from rlsaudit.checks._routines import reached, rewrite

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression
from rlsaudit.catalog.routines import Function
from rlsaudit.check import Example, Hit, Subject, check, quote
from rlsaudit.finding import SEVERITIES, Severity

_NOTES = """\
CREATE ROLE web LOGIN;
CREATE ROLE app LOGIN;
CREATE FUNCTION claims() RETURNS jsonb LANGUAGE sql STABLE
  AS $$ SELECT NULLIF(current_setting('request.jwt.claims', true), '')::jsonb $$;
CREATE TABLE notes (id int PRIMARY KEY, org_id uuid NOT NULL, text text);
ALTER TABLE notes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO app;
"""


@dataclass(frozen=True)
class _Belief:
    use: Use
    what: str
    """The claim, or the setting."""
    function: Function | None
    severity: Severity


@check(
    "RLS115",
    title="A policy believes a claim that users edit themselves",
    severity="critical",
    rationale=(
        "A token is signed, and what it says of user_metadata is still what the user wrote there: any user may change it"
        " by an ordinary call of the authentication service. What only the service writes is in app_metadata. Request"
        " headers and cookies are the client's altogether."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-3", "CWE-639", "CWE-807"),
    examples=(
        Example(
            setup=_NOTES,
            bad="CREATE POLICY org ON notes USING (org_id = (claims() -> 'user_metadata' ->> 'org_id')::uuid);",
            good="CREATE POLICY org ON notes USING (org_id = (claims() -> 'app_metadata' ->> 'org_id')::uuid);",
        ),
        Example(
            setup=_NOTES,
            bad=(
                "CREATE FUNCTION my_org() RETURNS uuid LANGUAGE plpgsql STABLE AS $$\n"
                "DECLARE found text;\n"
                "BEGIN found := claims() #>> '{user_metadata,org_id}'; RETURN found::uuid; END $$;\n"
                "CREATE POLICY org ON notes USING (org_id = my_org());"
            ),
            good=(
                "CREATE POLICY org ON notes USING (org_id = (claims() -> 'app_metadata' ->> 'org_id')::uuid\n"
                "  AND text <> coalesce(claims() -> 'user_metadata' ->> 'hidden', ''));"
            ),
        ),
        Example(
            setup=_NOTES,
            bad=(
                "CREATE FUNCTION org() RETURNS uuid LANGUAGE sql STABLE AS $$ SELECT (NULLIF(current_setting('request.jwt.claims',\n"
                "  true), '')::jsonb -> 'user_metadata' ->> 'org_id')::uuid $$;\n"
                "CREATE POLICY org ON notes USING (org_id = (SELECT org()));"
            ),
            good=(
                "CREATE FUNCTION org() RETURNS uuid LANGUAGE sql STABLE AS $$ SELECT (NULLIF(current_setting('request.jwt.claims',\n"
                "  true), '')::jsonb -> 'app_metadata' ->> 'org_id')::uuid $$;\n"
                "CREATE POLICY org ON notes USING (org_id = (SELECT org()));"
            ),
        ),
    ),
)
def user_editable_claim(subject: Subject) -> Iterator[Hit]:
    found: dict[object, list[_Belief]] = {}
    for one in _beliefs(subject):
        found.setdefault(one.function.oid if one.function else one.use.policy.name, []).append(one)
    for beliefs in found.values():
        yield _hit(subject, beliefs, min(beliefs, key=lambda one: SEVERITIES.index(one.severity)))


def _beliefs(subject: Subject) -> Iterator[_Belief]:
    seen: set[object] = set()
    nothing: set[object] = set()
    opaque: dict[Shape, bool] = {}
    for use in uses(subject):
        if (use.policy.oid, use.reading) in seen:
            continue
        seen.add((use.policy.oid, use.reading))
        shape = use.reading.shape
        if shape not in opaque:
            opaque[shape] = any(isinstance(part, e.Opaque) for part in e.walk(use.predicate))
        alike = (shape, (use.policy.using, use.policy.check) if opaque[shape] else None)
        if alike in nothing:
            continue
        some_believed = False
        for way, _ in use.reaches:
            believed = {condition: known for condition in way if (known := _decisive(subject, use, condition.atom))}
            if not believed:
                continue
            some_believed = True
            others = frozenset(condition for condition in way if condition not in believed)
            narrows = reach(others, use.place).kind == "tenant"
            for what, function in dict.fromkeys(one for known in believed.values() for one in known):
                severity: Severity = "info" if narrows else "high" if what not in CLAIMS else "critical"
                yield _Belief(use, what, function, severity)
        if not some_believed:
            nothing.add(alike)


def _decisive(subject: Subject, use: Use, atom: Expression) -> list[tuple[str, Function | None]]:
    """What the client sends matters where it names the tenant; held against another column it may be a credential."""
    columns = e.columns(atom)
    found = claims_read(subject, f"{use.policy.using} {use.policy.check}", atom)
    return [
        (what, function or _inlined(subject, use, what))
        for what, function in found
        if what in CLAIMS or not columns or use.place.key in columns
    ]


def _inlined(subject: Subject, use: Use, what: str) -> Function | None:
    """The function that reads the claim, where its body stands in the condition in place of a call."""
    if what in f"{use.policy.using} {use.policy.check}":
        return None
    called = (reached(subject, oid) for oid in subject.catalog.mentions("policy", use.policy.oid, "function"))
    return next((one for functions in called for one in functions if what in one.source), None)


def _hit(subject: Subject, beliefs: list[_Belief], worst: _Belief) -> Hit:
    relations = several(one.use.relation.qualified for one in beliefs)
    roles = listed(one.use.role.name for one in beliefs)
    function, policy, relation = worst.function, worst.use.policy, worst.use.relation
    whose = "every user edits" if worst.what in CLAIMS else "every client sends"
    reader = function.signature if function else f"The policy {quote(policy.name)}"
    detail = f"{reader} reads {worst.what}, which {whose} itself, and policies of {relations} decide by it: "
    detail += (
        "it narrows what the tenant's own condition admits."
        if worst.severity == "info"
        else f"a session ({roles}) that writes another tenant's value there sees that tenant's rows."
    )
    if function is not None:
        changes = [(one.what, CLAIMS[one.what]) for one in beliefs if one.what in CLAIMS]
        fix = rewrite(function, changes) if changes else ""
    else:
        fix = "\n".join(dict.fromkeys(_fix(one) for one in beliefs))
    if not fix and function is not None:
        policies = dict.fromkeys((one.use.policy.name, one.use.relation.qualified) for one in beliefs)
        fix = "\n".join(f"DROP POLICY {quote(name)} ON {table};" for name, table in policies)
    return Hit(
        function.signature if function else policy_name(policy, relation),
        detail,
        fix,
        worst.severity,
        relation=relation.qualified,
        command=listed(one.use.command for one in beliefs),
        role=roles,
    )


def _fix(belief: _Belief) -> str:
    """The policy with the claim that the service writes in its place."""
    policy, relation = belief.use.policy, belief.use.relation
    name = f"{quote(policy.name)} ON {relation.qualified}"
    if belief.what not in CLAIMS:
        return f"DROP POLICY {name};"
    parts = [
        f"{word} ({CLAIM.sub(lambda match: CLAIMS[match.group()], text)})"
        for word, text in (("USING", policy.using), ("WITH CHECK", policy.check))
        if text is not None
    ]
    return f"ALTER POLICY {name} {' '.join(parts)};"
