"""Tenants told apart by something that every client sets as it likes, or that sessions share."""

from __future__ import annotations

from collections.abc import Iterator

from rlsaudit.checks._context import asked, with_plain_key
from rlsaudit.checks._examples import PROTECTED, SOUND, TENANT
from rlsaudit.checks._fixes import policy_name, several
from rlsaudit.checks._reading import Shape, Use, one_of_each_reading
from rlsaudit.checks._routines import calls, reached, relation_names, relations_read, rewrite, tokens

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.identifiers import quote
from rlsaudit.catalog.outcome import Way
from rlsaudit.catalog.policies import settings_read
from rlsaudit.catalog.relations import Relation
from rlsaudit.catalog.routines import Function
from rlsaudit.check import Example, Hit, Subject, check, kept

_SERVER = frozenset(
    {"role", "session_authorization", "is_superuser", "server_version", "server_version_num", "cluster_name"}
)
"""Settings without a dot that a client cannot give any value it likes."""
_ASKING = (e.SessionRole, e.Setting, e.Call, e.Subquery)
_CALLS = {
    "inet_client_addr": "the client's address, which everybody behind one pool or gateway shares",
    "inet_client_port": "the client's port",
    "current_schema": "the search path, which every client may set",
    "current_schemas": "the search path, which every client may set",
    "current_query": "the text of the client's own query",
}
_TRANSACTION = frozenset(
    {"pg_current_xact_id", "pg_current_xact_id_if_assigned", "txid_current", "txid_current_if_assigned"}
)
_PID_SETUP = SOUND + "CREATE TABLE sessions (pid int PRIMARY KEY, transaction xid8, tenant_id int);\n"
_PID = """\
CREATE FUNCTION tenant() RETURNS int LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT s.tenant_id FROM public.sessions s WHERE s.pid = pg_backend_pid(){} $$;
ALTER POLICY tenant ON invoices USING (tenant_id = tenant());"""


@check(
    "RLS407",
    title="The tenant comes from something that any client sets",
    severity="high",
    rationale=(
        "application_name, the search path or a temporary table are the client's to choose, and an address or a server"
        " process is shared by many: none of them says who is acting."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.5", "NIST 800-53 IA-2", "CWE-290"),
    examples=(
        Example(
            setup=PROTECTED,
            bad="CREATE POLICY tenant ON invoices USING (tenant_id::text = current_setting('application_name'));",
            good=f"CREATE POLICY tenant ON invoices USING ({TENANT} AND current_setting('application_name') <> 'psql');",
        ),
        Example(
            setup=PROTECTED,
            bad="CREATE POLICY tenant ON invoices USING (tenant_id::text = current_schema());",
            good=f"CREATE POLICY tenant ON invoices USING ({TENANT} AND current_schema() = 'public');",
        ),
        Example(setup=_PID_SETUP, bad=_PID.format(""), good=_PID.format(" AND s.transaction = pg_current_xact_id_if_assigned()")),
    ),
)  # fmt: skip
def client_settable_context(subject: Subject) -> Iterator[Hit]:
    sources: dict[int, dict[str, None]] = {}
    places: dict[int, list[Use]] = {}
    for use in one_of_each_reading(subject):
        for way, reach in use.reaches if _asks_client(subject, use.reading.shape) else ():
            if reach.kind in ("tenant", "undecided", "party") and (found := _only_client(subject, use, way)):
                sources.setdefault(use.policy.oid, {}).update(dict.fromkeys(found))
                places.setdefault(use.policy.oid, []).append(use)
    alike: dict[tuple[str, ...], list[Use]] = {}
    for oid, said in sources.items():
        alike.setdefault(tuple(said), []).extend(places[oid])
    for causes, held in alike.items():
        yield _hit(subject, causes, held)
    yield from _by_process(subject)


def _hit(subject: Subject, causes: tuple[str, ...], held: list[Use]) -> Hit:
    policies = list({use.policy.oid: use for use in held}.values())
    first = policies[0]
    roles, tables = several(use.role.name for use in held), several(use.relation.qualified for use in policies)
    more = f" and {len(policies) - 1} more" if len(policies) > 1 else ""
    return Hit(
        policy_name(first.policy, first.relation),
        f"The {policy_name(first.policy, first.relation)}{more} {'tell' if more else 'tells'} the tenants of {tables} apart by nothing but"
        f" {several(causes)}, so a session of {roles} picks whose rows it gets.",
        "\n".join(with_plain_key(subject, use) for use in policies),
        relation=first.relation.qualified,
        role=roles,
    )


@kept
def _known_shapes(subject: Subject) -> dict[Shape, bool]:
    return {}


def _asks_client(subject: Subject, shape: Shape) -> bool:
    """Whether some way of the readings that have this shape goes by the client alone, whatever relations they read."""
    known = _known_shapes(subject)
    if shape not in known:
        known[shape] = any(_only_client(subject, None, way) for way, _ in shape.example.reaches)
    return known[shape]


def _only_client(subject: Subject, use: Use | None, way: Way) -> list[str]:
    """What of the client a way goes by, when it asks for nothing else of the session, row security of what it reads
    apart where no ``use`` is given."""
    # A way is a set: what makes it the session's is asked for before anything is read at length.
    parts = [part for condition in way for part in e.walk(condition.atom)]
    asking = [part for part in parts if isinstance(part, _ASKING)]
    if any(_of_session(subject, use, part) for part in asking):
        return []
    found: set[str] = set()
    for part in parts:
        if isinstance(part, e.Setting):
            found.add(f"{part.name}, which every client may set")
        elif isinstance(part, e.Call) and part.user and part.inlined is None:
            found.update(
                f"{name}, which every client may set" for name in settings_read(subject.catalog, part.function)
            )
            found.update(_in_text(subject, part.function))
        elif isinstance(part, e.Call) and not part.user and part.name in _CALLS:
            found.add(_CALLS[part.name])
    return sorted(found)


def _of_session(subject: Subject, use: Use | None, part: e.Expression) -> bool:
    """Whether the part asks for what the client cannot choose: the role, a setting of the application, own rows."""
    match part:
        case e.SessionRole():
            return True
        case e.Setting():
            return "." in part.name or part.name in _SERVER
        case e.Call(user=True, inlined=None):
            return any("." in name or name in _SERVER for name in settings_read(subject.catalog, part.function))
        case e.Subquery():
            return use is not None and _filtered(subject, use, part)
    return False


def _filtered(subject: Subject, use: Use, subquery: e.Subquery) -> bool:
    """Whether row security of a relation in the subquery shows only the session's own rows."""
    relations = [subject.catalog.find_relation(oid) for oid in subquery.relations]
    return any(r is not None and subject.visibility.exempt(use.role.oid, r) is None for r in relations)


def _in_text(subject: Subject, function: int) -> Iterator[str]:
    for one in reached(subject, function):
        for call in calls(one.source):
            if call.name in _CALLS:
                yield _CALLS[call.name]
        named = {token.text for token in tokens(one.source) if token.kind in ("word", "name")}
        for schema, name, _ in relation_names(one.source):
            if name == "pg_stat_activity" and "application_name" in named:
                yield "application_name, which every client may set"
            if schema == "pg_temp":
                yield f"the temporary table {name}, which every client may create"


def _by_process(subject: Subject) -> Iterator[Hit]:
    """Context kept under the number of the server process."""
    for one in asked(subject):
        function = one.function
        named = {token.text for token in tokens(function.source) if token.kind == "word"}
        held = [r for r in relations_read(subject, function) if r.holds_rows]
        if "pg_backend_pid" not in named or not held or one.arguments == "row":
            continue
        table = held[0]
        writers = [
            role.name
            for role in subject.tenancy.roles
            if any(subject.visibility.may(role.oid, table, command) for command in ("INSERT", "UPDATE"))
            and (not table.rls_enabled or subject.visibility.exempt(role.oid, table))
        ]
        tables = several(relation.qualified for relation in one.relations)
        if writers:
            revoke = f"REVOKE INSERT, UPDATE, DELETE ON TABLE {table.qualified} FROM {', '.join(('PUBLIC', *map(quote, writers)))};"
            detail = (
                f"{function.signature} takes the tenant from {table.qualified} by the server process, and {several(writers)}"
                f" may write there, so a session picks the tenant whose rows of {tables} it gets."
            )
            yield Hit(function.signature, detail, revoke, role=several(writers))
        elif not named & _TRANSACTION:
            detail = (
                f"{function.signature} takes the tenant from {table.qualified} by the server process only, not by the"
                f" transaction: the next request on a pooled connection finds the tenant before it and its rows of {tables}."
            )
            yield Hit(function.signature, detail, _compare_transaction(function, table), "high")


def _compare_transaction(function: Function, table: Relation) -> str:
    """A column with the transaction that the row was made in, compared beside the process."""
    old = next(call for call in calls(function.source) if call.name == "pg_backend_pid")
    text = function.source[old.start : old.end]
    return f"ALTER TABLE {table.qualified} ADD COLUMN set_in xid8 DEFAULT pg_current_xact_id();\n" + rewrite(
        function, [(text, f"{text} AND set_in = pg_current_xact_id_if_assigned()")]
    )
