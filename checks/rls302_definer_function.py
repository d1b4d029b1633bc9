"""Functions that run as somebody whom no policy binds."""

import re
from collections.abc import Iterator

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import listed, routine

from rlsaudit.catalog.model import Function, Relation
from rlsaudit.catalog.policies import settings_read
from rlsaudit.check import Example, Hit, Subject, check

_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_NAME = re.compile(r'"((?:[^"]|"")+)"|([A-Za-z_\u0080-\uffff][\w$]*)')
_SESSION = re.compile(r"\b(current_user|session_user|current_role|pg_backend_pid)\b", re.IGNORECASE)


@check(
    "RLS302",
    title="A SECURITY DEFINER function reaches tenant data past row security",
    severity="high",
    rationale=(
        "Inside a SECURITY DEFINER function the caller is its owner. When no policy binds the owner, only the function's"
        " own conditions keep tenants apart, and every caller may name any argument."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-6", "CWE-269"),
    examples=(
        Example(
            setup=SOUND,
            bad=(
                "CREATE FUNCTION invoice(wanted int) RETURNS SETOF invoices LANGUAGE sql STABLE\n"
                "  SECURITY DEFINER SET search_path = pg_catalog, pg_temp\n"
                "  AS $$ SELECT * FROM public.invoices WHERE id = wanted $$;"
            ),
            good=(
                "CREATE FUNCTION invoice(wanted int) RETURNS SETOF invoices LANGUAGE sql STABLE\n"
                "  SECURITY INVOKER SET search_path = pg_catalog, pg_temp\n"
                "  AS $$ SELECT * FROM public.invoices WHERE id = wanted $$;"
            ),
        ),
    ),
)
def definer_function(subject: Subject) -> Iterator[Hit]:
    names: dict[str, list[Relation]] = {}
    for oid in subject.tenancy.tenant_data():
        relation = subject.catalog.relation(oid)
        names.setdefault(relation.name, []).append(relation)
    for function in subject.catalog.functions:
        if not function.security_definer or function.extension or function.returns in ("trigger", "event_trigger"):
            continue
        callers = [r.name for r in subject.tenancy.roles if subject.visibility.may_execute(r.oid, function)]
        if not callers:
            continue
        reached = [
            (relation, why)
            for relation in _mentioned(subject, function, names)
            if (why := subject.visibility.exempt(function.owner, relation)) is not None and relation.holds_rows
        ]
        if not reached:
            continue
        detail = (
            f"{function.signature} runs as {subject.catalog.role_name(function.owner)}, whom no policy of"
            f" {listed(relation.qualified for relation, _ in reached)} binds ({reached[0][1]}), and"
            f" {listed(callers)} may call it"
        )
        looks = bool(settings_read(subject.catalog, function.oid)) or bool(_SESSION.search(function.source))
        detail += (
            "; it reads the session's context, so it may filter by itself: the probe calls it with foreign values."
            if looks
            else "; nothing in it looks at the session's tenant."
        )
        yield Hit(
            function.signature,
            detail,
            f"ALTER {routine(function)} {function.signature} SECURITY INVOKER;",
            "low" if looks else "critical",
            relation=reached[0][0].qualified,
            role=listed(callers),
        )


def _mentioned(subject: Subject, function: Function, names: dict[str, list[Relation]]) -> list[Relation]:
    """Tenant relations that the function depends on or names in its source."""
    found = dict.fromkeys(subject.catalog.mentions("function", function.oid, "relation"))
    for quoted, plain in _NAME.findall(_COMMENT.sub(" ", function.source)):
        for relation in names.get(quoted.replace('""', '"') if quoted else plain.lower(), ()):
            found[relation.oid] = None
    relations = (subject.catalog.find_relation(oid) for oid in found)
    return [r for r in relations if r is not None and subject.tenancy.of(r.oid).tenant_data]
