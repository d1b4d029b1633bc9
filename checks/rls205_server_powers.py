"""Powers over the server that no policy knows of."""

from collections.abc import Iterator

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import listed
from rlsaudit.checks._powers import application, leave, reaches, role_object

from rlsaudit.check import Example, Hit, Subject, check, quote
from rlsaudit.finding import Severity

_POWERS: dict[str, tuple[Severity, str]] = {
    "pg_execute_server_program": (
        "critical", "runs programs as the server's operating system user, who reads every table's files",
    ),
    "pg_write_server_files": (
        "critical", "writes files as the server's operating system user, its own configuration among them",
    ),
    "pg_read_server_files": ("high", "reads files of the server, where dumps, logs and keys lie"),
    "pg_monitor": ("medium", "shows the statements of every other role with the values in them"),
    "pg_read_all_stats": ("medium", "shows the statements of every other role with the values in them"),
    "pg_signal_backend": ("low", "ends the sessions of other roles"),
    "pg_create_subscription": ("low", "connects the server to others and takes rows from there"),
    "pg_read_all_settings": ("low", "shows settings that may hold secrets"),
    "pg_stat_scan_tables": ("low", "runs functions that hold locks on any table"),
    "pg_checkpoint": ("low", "slows the server down for everybody"),
}  # fmt: skip
_PART_OF = {
    "pg_read_all_stats": "pg_monitor",
    "pg_read_all_settings": "pg_monitor",
    "pg_stat_scan_tables": "pg_monitor",
}


@check(
    "RLS205",
    title="An application role has power over the server",
    severity="critical",
    rationale=(
        "Predefined roles such as pg_execute_server_program and the REPLICATION attribute work below the tables: files,"
        " programs, the write-ahead log, other sessions. Row security is not asked there, and no application needs them."
    ),
    standards=("SOC 2 CC6.3", "ISO 27001 A.8.2", "NIST 800-53 AC-6", "CWE-250"),
    examples=(
        Example(
            setup=SOUND,
            bad="GRANT pg_execute_server_program TO app;",
            good="CREATE ROLE loader LOGIN;\nGRANT pg_execute_server_program TO loader;",
        ),
        Example(setup=SOUND, bad="ALTER ROLE app REPLICATION;", good="CREATE ROLE standby LOGIN REPLICATION;"),
    ),
)
def server_powers(subject: Subject) -> Iterator[Hit]:
    catalog = subject.catalog
    for name, (severity, effect) in _POWERS.items():
        power = catalog.role_named(name)
        if power is None:
            continue
        whole = catalog.role_named(_PART_OF.get(name, ""))
        holders = [
            role
            for role in application(subject)
            if power.oid in (found := reaches(subject, role.oid)) and not (whole and whole.oid in found)
        ]
        if holders:
            names = listed(role.name for role in holders)
            yield Hit(
                role_object(holders[0].name),
                f"{names} {'is a member' if len(holders) == 1 else 'are members'} of {name}, which {effect}, whatever"
                " the policies say.",
                "\n".join(dict.fromkeys(leave(subject, role.oid, power.oid) for role in holders)),
                severity,
                role=names,
                command=name,
            )
    yield from _replication(subject)


def _replication(subject: Subject) -> Iterator[Hit]:
    logical = subject.catalog.parameter("wal_level") == "logical"
    seen: set[int] = set()
    for role in application(subject):
        for oid in sorted(subject.visibility.becomes(role.oid)):
            other = subject.catalog.role(oid)
            if not other.replication or other.superuser or oid in seen:
                continue
            seen.add(oid)
            holder = role.name if oid == role.oid else f"{role.name} can SET ROLE {other.name}, which"
            means = "logical decoding in plain SQL" if logical else "the stream of a standby or a base backup"
            yield Hit(
                role_object(role.name),
                f"{holder} has REPLICATION: by {means} it reads the rows of every tenant past row security.",
                f"ALTER ROLE {quote(other.name)} NOREPLICATION;",
                "critical" if logical else "high",
                role=role.name,
                command="REPLICATION",
            )
