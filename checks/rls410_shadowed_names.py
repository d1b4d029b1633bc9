"""Names in context functions that the caller can give another meaning."""

from __future__ import annotations

from collections.abc import Iterator

from rlsaudit.checks._context import Asked, asked
from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import several
from rlsaudit.checks._routines import calls, reached, relation_names

from rlsaudit.catalog.grants import Grant
from rlsaudit.catalog.identifiers import quote
from rlsaudit.catalog.policies import settings_read
from rlsaudit.check import Example, Hit, Subject, check, kept
from rlsaudit.finding import Severity

_SETUP = (
    SOUND
    + """\
CREATE TABLE logins (login name PRIMARY KEY, tenant_id int);
GRANT SELECT ON logins TO app;
"""
)
_FUNCTION = """\
CREATE FUNCTION tenant() RETURNS int LANGUAGE sql STABLE
AS $$ SELECT l.tenant_id FROM {}logins l WHERE l.login = session_user $$;
ALTER POLICY tenant ON invoices USING (tenant_id = tenant());"""


@check(
    "RLS410",
    title="A context function looks names up on the caller's search path",
    severity="high",
    rationale=(
        "The body of a function is text until it runs, and then its unqualified names are found on the search path of the"
        " session, temporary tables first. Whoever creates a table of that name in pg_temp answers in its place."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.28", "NIST 800-53 SI-10", "CWE-426"),
    examples=(Example(setup=_SETUP, bad=_FUNCTION.format(""), good=_FUNCTION.format("public.")),),
)
def shadowed_names(subject: Subject) -> Iterator[Hit]:
    for one in asked(subject):
        function = one.function
        pinned = any(setting.lower().startswith("search_path=") for setting in function.settings)
        text = function.language in ("sql", "plpgsql") and function.body_tree is None
        if pinned or not text or function.security_definer or function.extension:
            continue
        if settings_read(subject.catalog, function.oid):
            continue  # whoever can create a table can set the setting, and needs no detour
        yield from _hits(subject, one)


def _hits(subject: Subject, one: Asked) -> Iterator[Hit]:
    function = one.function
    roles = [role for role in subject.tenancy.roles if subject.visibility.may_execute(role.oid, function)]
    temporary = [role.name for role in roles if _may_on_database(subject, role.oid, "TEMPORARY")]
    creating = [role.name for role in roles if _may_create(subject, role.oid)]
    tables = _schemas(subject)
    read = [name for schema, name, _ in relation_names(function.source) if not schema and name in tables]
    routines = {other.name: other.schema for other in reached(subject, function.oid) if other.oid != function.oid}
    called = [call.name for call in calls(function.source) if not call.schema and call.name in routines]
    if read and temporary:
        severity: Severity = "high"
        how = f"{several(temporary)} may create a temporary table of that name and choose what it says"
    elif (read or called) and creating:
        severity, how = "medium", f"{several(creating)} may create its own and put it first on the search path"
    else:
        return
    schemas = dict.fromkeys([*(tables[name] for name in read), *(routines[name] for name in called)])
    path = ", ".join(["pg_catalog", *map(quote, schemas), "pg_temp"])
    places = several(relation.qualified for relation in one.relations)
    yield Hit(
        function.signature,
        f"{function.signature}, which policies of {places} ask, names {several([*read, *called])} without a schema: {how}.",
        f"ALTER FUNCTION {function.signature} SET search_path = {path};",
        severity,
        role=several(temporary or creating),
    )


@kept
def _schemas(subject: Subject) -> dict[str, str]:
    return {relation.name: relation.schema for relation in subject.catalog.relations}


@kept
def _on_database(subject: Subject) -> tuple[Grant, ...]:
    return subject.catalog.grants_on("database")


def _may_on_database(subject: Subject, role: int, privilege: str) -> bool:
    mine = subject.visibility.inherits(role) | {0}
    return any(grant.privilege == privilege and grant.grantee in mine for grant in _on_database(subject))


@kept
def _known_creators(subject: Subject) -> dict[int, bool]:
    return {}


def _may_create(subject: Subject, role: int) -> bool:
    known = _known_creators(subject)
    if role not in known:
        known[role] = _creates(subject, role)
    return known[role]


def _creates(subject: Subject, role: int) -> bool:
    schemas = (schema.name for schema in subject.catalog.schemas)
    return _may_on_database(subject, role, "CREATE") or any(
        subject.visibility.may_create_in(role, name) for name in schemas
    )
