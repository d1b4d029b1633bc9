"""System catalogs and server functions that were granted to the application."""

from collections.abc import Iterator

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import listed
from rlsaudit.checks._powers import application, grantees

from rlsaudit.catalog.grants import PUBLIC, SystemGrant
from rlsaudit.check import Example, Hit, Subject, check, quote
from rlsaudit.finding import Severity

_VALUES = "samples of every tenant's values lie there, whatever the policies of the tables say"
_RELATIONS: dict[str, tuple[Severity, str]] = {
    "pg_statistic": ("high", _VALUES),
    "pg_statistic_ext_data": ("high", _VALUES),
    "pg_largeobject": ("high", "the contents of every large object lie there, whoever owns it"),
    "pg_authid": ("high", "the password hashes of every role lie there, superusers' too"),
    "pg_shadow": ("high", "the password hashes of every role lie there, superusers' too"),
    "pg_user_mapping": ("high", "the passwords for foreign servers lie there"),
    "pg_subscription": ("high", "the connection strings of subscriptions lie there, with their passwords"),
    "pg_hba_file_rules": ("low", "it shows how the server lets people in"),
    "pg_file_settings": ("low", "it shows the server's configuration files"),
}
_COLUMNS = {
    "pg_statistic": ("stavalues", "stanumbers"), "pg_authid": ("rolpassword",), "pg_shadow": ("passwd",),
    "pg_user_mapping": ("umoptions",), "pg_subscription": ("subconninfo",), "pg_largeobject": ("data",),
    "pg_statistic_ext_data": ("stxdmcv", "stxdexpr"),
}  # fmt: skip
_FUNCTIONS: tuple[tuple[tuple[str, ...], Severity, str], ...] = (
    (
        ("pg_read_file", "pg_read_binary_file", "lo_import"), "critical",
        "it reads the files of the server, those that tables are stored in too",
    ),
    (("lo_export", "pg_file_write"), "critical", "it writes files of the server"),
    (("pg_ls_dir", "pg_ls_logdir", "pg_stat_file", "pg_ls_"), "low", "it shows which files the server has"),
    (("pg_terminate_backend", "pg_cancel_backend"), "low", "it ends other sessions"),
    (("pg_promote", "pg_reload_conf", "pg_rotate_logfile", "pg_switch_wal", "pg_backup_", "pg_wal_replay_",
      "pg_create_restore_point"), "medium", "it runs the server, not one tenant's session"),
    (("pg_stat_reset",), "low", "it erases the statistics of every tenant's tables"),
)  # fmt: skip


@check(
    "RLS209",
    title="An application role holds a privilege on the server's own objects",
    severity="high",
    rationale=(
        "Row security protects tables, not what the server keeps about them: statistics hold sampled values of every"
        " tenant, pg_largeobject every file, pg_authid every password hash, and pg_read_file reads the disk. initdb gives"
        " these to nobody."
    ),
    standards=("SOC 2 CC6.3", "ISO 27001 A.8.3", "NIST 800-53 AC-6", "CWE-732"),
    examples=(
        Example(
            setup=SOUND,
            bad="GRANT SELECT ON pg_catalog.pg_statistic TO app;",
            good="GRANT SELECT ON pg_catalog.pg_stats TO app;",
        ),
        Example(
            setup=SOUND,
            bad="GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) TO app;",
            good="CREATE ROLE viewer;\nGRANT EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) TO viewer;",
        ),
    ),
)
def system_grant(subject: Subject) -> Iterator[Hit]:
    groups: dict[str, list[tuple[SystemGrant, str]]] = {}
    for role in application(subject) if subject.catalog.system_grants else ():
        theirs = grantees(subject, role.oid)
        for grant in subject.catalog.system_grants:
            if grant.grantee in theirs:
                groups.setdefault(grant.name, []).append((grant, role.name))
    for name, found in groups.items():
        first = found[0][0]
        known = _effect(first)
        if known is None:
            continue
        severity, effect = known
        who = listed(role for _, role in found)
        privileges = listed(grant.privilege for grant, _ in found)
        yield Hit(
            name,
            f"{who} holds {privileges} on {name}: {effect}.",
            "\n".join(dict.fromkeys(_revoke(subject, grant) for grant, _ in found)),
            severity,
            role=who,
        )


def _effect(grant: SystemGrant) -> tuple[Severity, str] | None:
    """What the grant opens; None when it opens nothing.  Only SELECT counts: nobody but a superuser writes catalogs."""
    parts = grant.name.partition("(")[0].split(".")
    if grant.target == "function":
        for names, severity, effect in _FUNCTIONS:
            if any(parts[1] == one or (one.endswith("_") and parts[1].startswith(one)) for one in names):
                return severity, effect
        return "low", "initdb lets only superusers call it"
    if grant.privilege != "SELECT" or parts[1] not in _RELATIONS:
        return None
    if grant.target == "column" and not parts[2].startswith(_COLUMNS.get(parts[1], ())):
        return None
    return _RELATIONS[parts[1]]


def _revoke(subject: Subject, grant: SystemGrant) -> str:
    grantee = "PUBLIC" if grant.grantee == PUBLIC else quote(subject.catalog.role_name(grant.grantee))
    if grant.target == "function":
        return f"REVOKE {grant.privilege} ON FUNCTION {grant.name} FROM {grantee};"
    schema, relation, *column = grant.name.split(".")
    columns = f" ({quote(column[0])})" if column else ""
    return f"REVOKE {grant.privilege}{columns} ON TABLE {schema}.{quote(relation)} FROM {grantee};"
