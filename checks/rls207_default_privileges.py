"""Default privileges that open tables nobody has protected yet."""

import re
from collections.abc import Iterator

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import in_order, listed, several
from rlsaudit.checks._powers import application, grantees

from rlsaudit.catalog.grants import PUBLIC, DefaultPrivilege
from rlsaudit.catalog.routines import EventTrigger
from rlsaudit.check import Example, Hit, Subject, check, quote
from rlsaudit.finding import Severity

_ROWS = ("SELECT", "INSERT", "UPDATE", "DELETE")
_COMMENT = re.compile(r"('(?:[^']|'')*')|--[^\n]*|/\*.*?\*/", re.DOTALL)
_EXECUTES = re.compile(r"\bEXECUTE\b", re.IGNORECASE)
_SAYS = re.compile(r"\bRAISE\b", re.IGNORECASE)
_ENABLES = re.compile(r"\bENABLE\s+ROW\s+LEVEL\s+SECURITY\b", re.IGNORECASE)
_REFUSES = re.compile(r"\brelrowsecurity\b.*\bRAISE\s+(?:EXCEPTION\b|')", re.IGNORECASE | re.DOTALL)
_CREATES = frozenset({"CREATE TABLE", "CREATE TABLE AS", "SELECT INTO"})
_NAMED = re.compile(r"'(CREATE TABLE|CREATE TABLE AS|SELECT INTO)'", re.IGNORECASE)
_PROTECTS = """\
CREATE FUNCTION protect() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE made record;
BEGIN
  FOR made IN SELECT * FROM pg_event_trigger_ddl_commands() WHERE object_type = 'table' LOOP
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', made.object_identity);
  END LOOP;
END $$;
CREATE EVENT TRIGGER protect ON ddl_command_end EXECUTE FUNCTION protect();
"""
_OPEN = "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT ON TABLES TO app;"


@check(
    "RLS207",
    title="Tables made later are open before anybody protects them",
    severity="high",
    rationale=(
        "ALTER DEFAULT PRIVILEGES hands every future table to the grantee, but row security starts switched off. One"
        " migration that forgets it opens its table to every tenant; with grants in the same migration it would be closed."
    ),
    standards=("SOC 2 CC6.1", "SOC 2 CC8.1", "ISO 27001 A.8.3", "NIST 800-53 AC-3", "CWE-276"),
    examples=(
        Example(
            setup=SOUND,
            bad=_OPEN,
            good="ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE ON SEQUENCES TO app;",
        ),
        Example(setup=SOUND, bad=_OPEN, good=_PROTECTS + _OPEN),
    ),
)
def default_privileges(subject: Subject) -> Iterator[Hit]:
    catalog = subject.catalog
    # Grantee by grantee, the application roles that would have it.
    theirs: dict[int, list[str]] = {}
    for role in application(subject):
        for oid in grantees(subject, role.oid):
            theirs.setdefault(oid, []).append(role.name)
    groups: dict[int, list[DefaultPrivilege]] = {}
    for one in catalog.default_privileges:
        gives = one.object_type == "relation" and one.privilege in (*_ROWS, "TRUNCATE", "TRIGGER")
        if gives and one.grantee in theirs and catalog.role_name(one.creator) not in theirs[one.grantee]:
            groups.setdefault(one.creator, []).append(one)
    guard = _guard(subject)
    for creator, given in groups.items():
        yield _hit(
            subject, creator, given, listed(dict.fromkeys(n for one in given for n in theirs[one.grantee])), guard
        )


def _hit(
    subject: Subject, creator: int, given: list[DefaultPrivilege], who: str, guard: tuple[EventTrigger, bool] | None
) -> Hit:
    catalog = subject.catalog
    schemas = {schema.oid: schema.name for schema in catalog.schemas}
    holding = {catalog.relation(oid).schema for oid in subject.tenancy.tenant_data()}
    severity: Severity = "high" if any(not g.schema or schemas.get(g.schema) in holding for g in given) else "low"
    maker = catalog.role_name(creator)
    where = several(f"schema {schemas.get(one.schema, '?')}" if one.schema else "any schema" for one in given)
    privileges = listed(in_order({one.privilege for one in given}))
    detail = f"Every table that {maker} makes in {where} is open to {who} at once ({privileges}), row security or not"
    if guard is None:
        detail += ": one that is made without it shows the rows of every tenant."
    elif guard[1]:
        severity = "info"
        detail += f"; the event trigger {guard[0].name} sees to it."
    else:
        severity = "low"
        detail += f"; the event trigger {guard[0].name} sees to it for some ways to make a table, not for all."
    return Hit(
        f"default privileges of {quote(maker)}",
        detail,
        "\n".join(_revoke(subject, given, schemas)),
        severity,
        role=who,
    )


def _revoke(subject: Subject, given: list[DefaultPrivilege], schemas: dict[int, str]) -> Iterator[str]:
    grouped: dict[tuple[int, int, int], set[str]] = {}
    for one in given:
        grouped.setdefault((one.creator, one.schema, one.grantee), set()).add(one.privilege)
    for (creator, schema, grantee), privileges in grouped.items():
        inside = f" IN SCHEMA {quote(schemas[schema])}" if schema in schemas else ""
        name = "PUBLIC" if grantee == PUBLIC else quote(subject.catalog.role_name(grantee))
        yield (
            f"ALTER DEFAULT PRIVILEGES FOR ROLE {quote(subject.catalog.role_name(creator))}{inside}"
            f" REVOKE {', '.join(in_order(privileges))} ON TABLES FROM {name};"
        )


def _guard(subject: Subject) -> tuple[EventTrigger, bool] | None:
    """The event trigger that switches row security on for new tables or refuses them, and whether for all of them."""
    if subject.catalog.parameter("event_triggers") == "off":
        return None
    found: tuple[EventTrigger, bool] | None = None
    for trigger in subject.catalog.event_triggers:
        function = subject.catalog.function(trigger.function)
        if function is None or trigger.event != "ddl_command_end" or trigger.enabled not in ("origin", "always"):
            continue
        tags = frozenset(tag.upper() for tag in trigger.tags)
        text = _COMMENT.sub(lambda match: match.group(1) or " ", function.source)
        if (tags and "CREATE TABLE" not in tags) or not (_enables(text) or _REFUSES.search(text)):
            continue
        named = frozenset(tag.upper() for tag in _NAMED.findall(text))
        whole = (not tags or tags >= _CREATES) and (not named or named >= _CREATES)
        if found is None or whole:
            found = trigger, whole
    return found


def _enables(text: str) -> bool:
    """Whether the body executes ENABLE ROW LEVEL SECURITY, rather than only ask for it in a message."""
    statements = text.split(";")
    return bool(_EXECUTES.search(text)) and any(_ENABLES.search(one) and not _SAYS.search(one) for one in statements)
