"""Names in a function's body that a caller can put something else behind."""

from collections.abc import Iterator

from rlsaudit.checks._bodies import reading
from rlsaudit.checks._deciders import deciders
from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import listed, routine
from rlsaudit.checks._known import READABLE, callers, find_relation, fired_by, named
from rlsaudit.checks._rows import Reading

from rlsaudit.catalog.identifiers import quote
from rlsaudit.catalog.names import search_path
from rlsaudit.catalog.routines import Function
from rlsaudit.check import Example, Hit, Subject, check
from rlsaudit.finding import Severity
from rlsaudit.tenancy.model import ApplicationRole

_TOTAL = """\
CREATE FUNCTION total() RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER{path} AS $$
  SELECT sum(amount) FROM {table} WHERE tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::int $$;"""


@check(
    "RLS312",
    title="A caller can put its own table or function behind a name in a trusted function",
    severity="high",
    rationale=(
        "Names without a schema are looked up in search_path when the function runs. Without SET search_path that is the"
        " caller's path, and pg_temp comes first for tables unless the path names it last: a temporary table of the same"
        " name then decides what a SECURITY DEFINER function or a policy sees."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.28", "NIST 800-53 AC-6", "CWE-426", "CVE-2018-1058"),
    examples=(
        Example(
            setup=SOUND,
            bad=_TOTAL.format(path=" SET search_path = public", table="invoices"),
            good=_TOTAL.format(path=" SET search_path = public, pg_temp", table="invoices"),
        ),
        Example(
            setup=SOUND,
            bad=_TOTAL.format(path="", table="invoices"),
            good=_TOTAL.format(path="", table="public.invoices"),
        ),
    ),
)
def mutable_path(subject: Subject) -> Iterator[Hit]:
    fired: dict[int, list[str]] = {}
    for trigger in subject.catalog.triggers:
        fired.setdefault(trigger.function, []).extend(fired_by(subject, trigger))
    temporary = _temporary(subject)
    creatable = [
        schema.name
        for schema in subject.catalog.schemas
        if any(subject.visibility.may_create_in(role.oid, schema.name) for role in _roles(subject))
    ]
    for function in subject.catalog.functions:
        if function.extension or function.body_tree is not None or function.language not in READABLE:
            continue
        who = callers(subject, function) if function.returns != "trigger" else fired.get(function.oid, [])
        policies = deciders(subject).get(function.oid, ())
        if not (function.security_definer and who) and not policies:
            continue
        found = _hijack(subject, function, reading(subject, function), temporary, creatable)
        if found is None:
            continue
        severity, how = found
        use = "decides in policies" if policies else f"runs as {subject.catalog.role_name(function.owner)}"
        yield Hit(
            function.signature, f"{function.signature} {use} and {how}.", _fix(subject, function, creatable), severity
        )


def _roles(subject: Subject) -> list[ApplicationRole]:
    return [role for role in subject.tenancy.roles if not subject.catalog.role(role.oid).superuser]


def _temporary(subject: Subject) -> bool:
    """Whether an application role may make temporary tables."""
    held = {oid for role in _roles(subject) for oid in subject.visibility.inherits(role.oid)} | {0}
    return any(
        grant.privilege in ("TEMP", "TEMPORARY") and grant.grantee in held
        for grant in subject.catalog.grants_on("database")
    )


def _hijack(
    subject: Subject, function: Function, done: Reading, temporary: bool, creatable: list[str]
) -> tuple[Severity, str] | None:
    path = search_path(function)
    tables = [r for name in done.unqualified if (r := find_relation(subject, function, (name,))) is not None]
    for relation in tables:
        before = None if path is None else path[: path.index(relation.schema)] if relation.schema in path else path
        owned = creatable if before is None else [name for name in creatable if name in before]
        if owned:
            return (
                "high",
                f"names {relation.name} without a schema: one in {owned[0]}, where the application may create, comes first",
            )
        if temporary and (before is None or "pg_temp" in before or "pg_temp" not in (path or ())):
            how = "has no SET search_path" if path is None else "does not name pg_temp last in its search_path"
            return "high", f"{how}: a temporary table {relation.name} of the caller stands in for {relation.qualified}"
    helpers = [one for name in done.calls if len(name) == 1 for one in named(subject, function, name)]
    for one in helpers:
        before = None if path is None else path[: path.index(one.schema)] if one.schema in path else ()
        owned = creatable if before is None else [name for name in creatable if name in before and name != one.schema]
        if owned:
            return (
                "high",
                f"calls {one.name} without a schema: one in {owned[0]}, where the application may create, comes first",
            )
    if path is None and function.security_definer:
        if creatable and _operators(function):
            return (
                "medium",
                f"has no SET search_path: what the application creates in {creatable[0]} can stand in for operators",
            )
        if tables:
            return "low", f"has no SET search_path and names {listed(r.name for r in tables)} without a schema"
    return None


def _operators(function: Function) -> bool:
    return "operator(" not in function.source.lower().replace(" ", "") and "=" in function.source


def _fix(subject: Subject, function: Function, creatable: list[str]) -> str:
    done = reading(subject, function)
    used = [r.schema for name in done.unqualified if (r := find_relation(subject, function, (name,)))]
    used += [one.schema for name in done.calls if len(name) == 1 for one in named(subject, function, name)]
    known = [name for name in (search_path(function) or ()) if name not in ("pg_temp", "pg_catalog", "$user")]
    names = dict.fromkeys(
        [
            "pg_catalog",
            *(n for n in known if n not in creatable),
            *(n for n in used if n not in creatable),
            *(n for n in used if n in creatable),
        ]
    )
    return f"ALTER {routine(function)} {function.signature} SET search_path = {', '.join(map(quote, names))}, pg_temp;"
