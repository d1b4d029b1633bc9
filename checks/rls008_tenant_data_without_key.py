"""Copies, logs and queues that hold tenant data without saying whose it is."""

from collections.abc import Iterator

from rlsaudit.checks._copies import evidence, without_key
from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import listed, revoke, users_of

from rlsaudit.check import Example, Hit, Subject, check


@check(
    "RLS008",
    title="Tenant data in a table without a tenant key",
    severity="high",
    rationale=(
        "An outbox, an audit log or a copy often carries rows of every tenant with the tenant inside a document, or not"
        " at all. Without a key column no policy can tell whose a row is, so whoever may read the table reads them all."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-3", "CWE-284"),
    examples=(
        Example(
            setup=SOUND,
            bad=(
                "CREATE TABLE outbox (id bigint PRIMARY KEY, topic text NOT NULL, payload jsonb NOT NULL);\n"
                "GRANT SELECT, INSERT, DELETE ON outbox TO app;"
            ),
            good=(
                "CREATE TABLE outbox (id bigint PRIMARY KEY, topic text NOT NULL, payload jsonb NOT NULL);\n"
                "GRANT INSERT ON outbox TO app;"
            ),
        ),
        Example(
            setup=SOUND,
            bad=(
                "CREATE TABLE invoices_backup_2024 (id int, amount int);\nGRANT SELECT ON invoices_backup_2024 TO app;"
            ),
            good="CREATE TABLE currencies (id int, name text);\nGRANT SELECT ON currencies TO app;",
        ),
        Example(
            setup=SOUND,
            bad=(
                "CREATE SCHEMA history;\nCREATE TABLE history.invoices (entry bigint PRIMARY KEY, row_data jsonb);\n"
                "GRANT USAGE ON SCHEMA history TO app;\nGRANT SELECT ON history.invoices TO app;"
            ),
            good=(
                "CREATE SCHEMA reference;\nCREATE TABLE reference.invoices (code text PRIMARY KEY, label jsonb);\n"
                "GRANT USAGE ON SCHEMA reference TO app;\nGRANT SELECT ON reference.invoices TO app;"
            ),
        ),
        Example(
            setup=SOUND,
            bad=(
                "CREATE TABLE recent (customer int, name text, body text);\n"
                "CREATE RULE recent AS ON INSERT TO customers DO ALSO INSERT INTO recent VALUES (NEW.id, NEW.name, '');\n"
                "GRANT SELECT ON recent TO app;"
            ),
            good=(
                "CREATE TABLE counters (day date, rows int);\n"
                "CREATE RULE count AS ON INSERT TO customers DO ALSO INSERT INTO counters VALUES (current_date, 1);\n"
                "GRANT SELECT ON counters TO app;"
            ),
        ),
    ),
)
def tenant_data_without_key(subject: Subject) -> Iterator[Hit]:
    for relation in without_key(subject):
        readers = [(role, commands) for role, commands in users_of(subject, relation) if "SELECT" in commands]
        if not readers:
            continue
        found = evidence(subject, relation)
        if found is None:
            continue
        why, severity = found
        security = "its policies admit every row" if relation.rls_enabled else "no row security"
        who = listed(role.name for role, _ in readers)
        fixes = (
            revoke(subject, relation, role.oid, [one for one in commands if one != "INSERT"])
            for role, commands in readers
        )
        yield Hit(
            relation.qualified,
            f"{relation.qualified} has no tenant key and {security}, and {why}: {who} may read what all"
            " tenants put there.",
            "\n".join(dict.fromkeys(fixes)),
            severity,
            relation=relation.qualified,
        )
