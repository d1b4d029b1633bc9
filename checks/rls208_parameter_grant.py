"""Parameters that were granted to the application."""

from collections.abc import Iterator

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import listed
from rlsaudit.checks._powers import application, grantees, role_object

from rlsaudit.catalog.grants import PUBLIC, Grant
from rlsaudit.check import Example, Hit, Subject, check, quote
from rlsaudit.finding import Severity

_SET: dict[str, tuple[Severity, str]] = {
    "session_replication_role": (
        "high", "with replica, triggers and foreign keys no longer fire in its session, guards among them",
    ),
    "session_preload_libraries": ("critical", "every session of its own loads the library that it names"),
    "dynamic_library_path": ("high", "functions in C are loaded from where it says"),
    "lo_compat_privileges": ("high", "with on, the privileges of large objects are no longer asked"),
    "event_triggers": ("medium", "with off, event triggers that protect new tables no longer fire"),
    "allow_system_table_mods": ("medium", "with on, system tables may be altered"),
}  # fmt: skip
_LOGGING = ("log_", "pgaudit.", "auto_explain.", "track_")


@check(
    "RLS208",
    title="An application role may set a parameter that isolation rests on",
    severity="high",
    rationale=(
        "GRANT SET and GRANT ALTER SYSTEM ON PARAMETER (PostgreSQL 15 and later) hand out what only superusers change:"
        " session_replication_role switches guard triggers off, SET on the tenant's own setting lets a role store a"
        " tenant for every later session, ALTER SYSTEM changes the whole server."
    ),
    standards=("SOC 2 CC6.3", "ISO 27001 A.8.2", "NIST 800-53 AC-6", "CWE-269"),
    examples=(
        Example(
            setup=SOUND,
            bad="GRANT SET ON PARAMETER session_replication_role TO app;",
            good="GRANT SET ON PARAMETER log_min_duration_statement TO app;",
        ),
    ),
)
def parameter_grant(subject: Subject) -> Iterator[Hit]:
    granted = subject.catalog.grants_on("parameter")
    groups: dict[tuple[str, str], tuple[list[Grant], list[str]]] = {}
    for role in application(subject) if granted else ():
        theirs = grantees(subject, role.oid)
        for grant in granted:
            if grant.grantee in theirs:
                grants, names = groups.setdefault((grant.parameter, grant.privilege), ([], []))
                grants.append(grant)
                names.append(role.name)
    for (parameter, privilege), (grants, names) in groups.items():
        severity, effect = _effect(subject, parameter, privilege)
        who = listed(names)
        yield Hit(
            role_object(names[0]),
            f"{who} may {privilege} {parameter}: {effect}.",
            "\n".join(
                f"REVOKE {privilege} ON PARAMETER {_parameter(parameter)} FROM"
                f" {'PUBLIC' if oid == PUBLIC else quote(subject.catalog.role_name(oid))};"
                for oid in dict.fromkeys(grant.grantee for grant in grants)
            ),
            severity,
            role=who,
            command=f"{privilege} {parameter}",
        )


def _effect(subject: Subject, parameter: str, privilege: str) -> tuple[Severity, str]:
    name = parameter.lower()
    own = name in subject.tenancy.context.settings
    if privilege == "ALTER SYSTEM":
        if name.startswith(_LOGGING):
            return "medium", "it can stop the server from recording what is done"
        return "critical" if name.endswith(("_command", "_libraries")) else "high", "it is changed for the whole server"
    if own:
        return "high", (
            "it can store a tenant as a default of its role with ALTER ROLE, and every session that sets none then acts"
            " for that tenant"
        )
    if name in _SET:
        return _SET[name]
    if name.startswith(_LOGGING):
        return "low", "it can keep its statements out of the log"
    return "low", "only superusers change it otherwise"


def _parameter(name: str) -> str:
    return ".".join(quote(part) for part in name.split("."))
