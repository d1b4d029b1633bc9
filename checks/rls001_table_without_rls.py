"""Tenant data without row security."""

from collections.abc import Iterator

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import listed, protect, revoke, said, users_of

from rlsaudit.catalog.cluster import Role
from rlsaudit.catalog.grants import PUBLIC
from rlsaudit.catalog.relations import Relation
from rlsaudit.check import Example, Hit, Subject, check
from rlsaudit.finding import SEVERITIES, Severity
from rlsaudit.tenancy import words
from rlsaudit.tenancy.model import ApplicationRole

Who = tuple[tuple[ApplicationRole, tuple[str, ...]], ...]


@check(
    "RLS001",
    title="Tenant data without row security",
    severity="critical",
    rationale=(
        "A table that holds the rows of many tenants and has no row security shows every row to whoever may read it."
        " Copies, history tables and children that only refer to a tenant's row are forgotten most often."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-3", "CWE-284"),
    examples=(
        Example(
            setup=SOUND,
            bad=(
                "CREATE TABLE payments (id int PRIMARY KEY, tenant_id int NOT NULL, amount int);\n"
                "GRANT SELECT ON payments TO app;"
            ),
            good=(
                "CREATE TABLE payments (id int PRIMARY KEY, tenant_id int NOT NULL, amount int);\n"
                "ALTER TABLE payments ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;\n"
                "CREATE POLICY tenant ON payments\n"
                "  USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::int);\n"
                "GRANT SELECT ON payments TO app;"
            ),
        ),
        Example(
            setup=SOUND,
            bad=(
                "CREATE TABLE invoice_lines (invoice_id int NOT NULL REFERENCES invoices, text text);\n"
                "GRANT SELECT, INSERT ON invoice_lines TO app;"
            ),
            good=("CREATE TABLE currencies (code text PRIMARY KEY, name text);\nGRANT SELECT ON currencies TO app;"),
        ),
    ),
)
def table_without_rls(subject: Subject) -> Iterator[Hit]:
    for oid in subject.tenancy.tenant_data():
        relation, classified = subject.catalog.relation(oid), subject.tenancy.of(oid)
        if not relation.holds_rows or relation.rls_enabled or relation.rls_forced:
            continue
        if subject.catalog.policies_of(oid) or _inherits_tenant_data(subject, relation.parents):
            continue
        who = users_of(subject, relation)
        what = f"{relation.qualified} holds tenant data ({classified.why}) and has no row security"
        if not who:
            detail = f"{what}; no application role holds a privilege on its rows, so only other roles see them all."
            fix = "" if relation.kind == "foreign table" else protect(subject, relation, classified)
            yield Hit(relation.qualified, detail, fix, "info", relation=relation.qualified)
            continue
        severity: Severity = "high" if classified.kind in ("registry", "principal") else "critical"
        if relation.kind == "foreign table":
            yield _foreign(subject, relation, what, who, severity)
            continue
        commands = listed(dict.fromkeys(c for _, held in who for c in held))
        reaches = f"{'reach' if len(who) > 1 else 'reaches'} the rows of every tenant"
        if commands == "INSERT":
            reaches, severity = "may add rows in the name of any tenant", "high"
        elif commands == "SELECT" and classified.kind == "principal" and _bare_list(relation):
            severity = "low"
        yield Hit(
            relation.qualified,
            f"{what}: {said(who)} {reaches}.",
            protect(subject, relation, classified),
            severity,
            relation=relation.qualified,
            command=commands,
        )


def _bare_list(relation: Relation) -> bool:
    """Whether rows say no more than who is in it, as a list of operators does."""
    return all(
        column.name == "id" or words.user_like(column.name) or column.category in ("B", "D")
        for column in relation.columns
    )


def _foreign(subject: Subject, relation: Relation, what: str, who: Who, severity: Severity) -> Hit:
    """What the rows of a foreign table are depends on whom the far end takes each role for."""
    found = [(role, commands, *_remote(subject, relation, role.oid)) for role, commands in who]
    worst = min((one[3] for one in found), key=SEVERITIES.index)
    severity = worst if worst != "critical" else severity
    telling = [one for one in found if one[3] == worst]
    return Hit(
        relation.qualified,
        f"{what}, which a foreign table cannot have: {said([(r, c) for r, c, _, _ in telling])} {telling[0][2]}.",
        "\n".join(revoke(subject, relation, role.oid, commands) for role, commands, _, _ in telling),
        severity,
        relation=relation.qualified,
    )


def _remote(subject: Subject, relation: Relation, role: int) -> tuple[str, Severity]:
    """As whom the role arrives at the far end, and how bad that is."""
    catalog = subject.catalog
    mappings = [one for one in catalog.user_mappings if one.server == relation.foreign_server]
    mapping = next((one for own in (role, PUBLIC) for one in mappings if one.role == own), None)
    server = next((one for one in catalog.foreign_servers if one.oid == relation.foreign_server), None)
    wrapper = server.wrapper if server else ""
    if mapping is None and wrapper == "postgres_fdw":
        return "has no user mapping, so the far end cannot be reached", "low"
    if mapping is None or mapping.user is None:
        return "reaches the rows of every tenant that the far end holds", "critical"
    remote = catalog.role_named(mapping.user)
    if remote is None:
        return f"arrives there as {mapping.user}, of whom nothing here says that policies bind it", "critical"
    free = _free(subject, remote)
    if free:
        return f"arrives there as {remote.name}, {free}: the rows of every tenant are open", "critical"
    return f"arrives there as {remote.name}, whom policies bind here; whether they do there is not looked at", "low"


def _free(subject: Subject, remote: Role) -> str:
    """Why no policy would bind a role of that name, if the far end is like this database."""
    if remote.superuser or remote.bypassrls:
        return "a superuser" if remote.superuser else "who has BYPASSRLS"
    for oid in subject.tenancy.tenant_data():
        relation = subject.catalog.relation(oid)
        if relation.rls_enabled and subject.visibility.exempt(remote.oid, relation):
            return f"who owns {relation.qualified}, where row security is not forced"
    return ""


def _inherits_tenant_data(subject: Subject, parents: tuple[int, ...]) -> bool:
    """Partitions and inheritance children are another check's."""
    return any(oid in subject.tenancy.relations and subject.tenancy.of(oid).tenant_data for oid in parents)
