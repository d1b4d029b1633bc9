"""Views of system catalogs that hold values of every tenant."""

from collections.abc import Iterator

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import listed, revoke, said, users_of
from rlsaudit.checks._routines import relation_names

from rlsaudit.check import Example, Hit, Subject, check

_HOLDS = {
    "pg_statistic": "sampled values of every table",
    "pg_statistic_ext_data": "sampled values of every table",
    "pg_largeobject": "the contents of all large objects",
    "pg_authid": "password hashes",
    "pg_shadow": "password hashes",
    "pg_user_mapping": "passwords for other servers",
}


@check(
    "RLS307",
    title="A view opens a system catalog that holds values of every tenant",
    severity="high",
    rationale=(
        "Samples of table rows stand in pg_statistic, whatever policies say, and large objects in pg_largeobject. Only"
        " superusers may read them, until a view of one hands them on."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-6", "CWE-200"),
    examples=(
        Example(
            setup=SOUND,
            bad=(
                "CREATE VIEW samples AS SELECT starelid, stavalues1::text FROM pg_statistic;\n"
                "GRANT SELECT ON samples TO app;"
            ),
            good="CREATE VIEW samples AS SELECT tablename, n_distinct FROM pg_stats;\nGRANT SELECT ON samples TO app;",
        ),
    ),
)
def view_of_system_data(subject: Subject) -> Iterator[Hit]:
    for view in subject.catalog.relations:
        if view.kind not in ("view", "materialized view") or view.definition is None or view.extension:
            continue
        # A materialized view keeps what its owner may read, an invoker view nothing that the caller may not.
        named = {name for schema, name, _ in relation_names(view.definition) if schema in ("", "pg_catalog")}
        held = [name for name in _HOLDS if name in named]
        owner = next((role for role in subject.catalog.roles if role.oid == view.owner), None)
        who = users_of(subject, view)
        if not held or not who or view.security_invoker or owner is None or not owner.superuser:
            continue
        what, see = listed(_HOLDS[name] for name in held), "see" if len(who) > 1 else "sees"
        yield Hit(
            view.qualified,
            f"{view.qualified} reads {listed(held)} with the rights of {owner.name}: {said(who)} {see} {what}.",
            "\n".join(revoke(subject, view, role.oid, commands) for role, commands in who),
            relation=view.qualified,
        )
