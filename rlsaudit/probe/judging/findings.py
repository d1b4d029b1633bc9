"""Leaks as findings: what happened, in words, with the script that replays it."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

from psycopg import sql

from rlsaudit.catalog.grants import PUBLIC
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.visibility import visibility_of
from rlsaudit.finding import Finding, Property, Severity
from rlsaudit.probe.ground import statement_text
from rlsaudit.probe.ground.leak import Leak
from rlsaudit.probe.ground.world import SHARED
from rlsaudit.probe.judging.telling import Told

_STANDARDS = ("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-3", "CWE-639")

_TITLES: dict[Property, str] = {
    "read": "A tenant can read another tenant's rows",
    "write": "A tenant can change or delete another tenant's rows",
    "forge": "A tenant can create rows for another tenant, or move rows to it",
    "closed": "A session without a valid context reaches tenants' rows",
    "carryover": "A tenant's context outlives its transaction on a pooled connection",
    "interference": "What a tenant observes depends on rows of others",
}
_CONSTRAINT_TITLE = "A constraint tells a tenant which rows others have"
_OPENED_TITLE = "A setting that a session may set for itself opens other tenants' rows"
_SHARED_TITLE = "A tenant can change rows that all tenants share"
_FED_TITLE = "A publication sends every tenant's rows"
_REFERENCE_TITLE = "A row may refer to another tenant's, against its own foreign key"

_RATIONALE: dict[Property, str] = {
    "read": "Row-level separation is the only thing between tenants in a shared table; here it does not hold.",
    "write": "One tenant can damage or destroy another tenant's data, and no read of its own would show it.",
    "forge": "Rows that a tenant never wrote appear as its own, or its own rows disappear into another tenant.",
    "closed": "A request whose context is missing must see nothing; a forgotten SET would otherwise show everything.",
    "interference": "No row of another tenant is shown, but whether it exists, or how many there are, can be told.",
    "carryover": "A connection pool hands the next request a session that still acts for the previous tenant.",
}


_OPENED_RATIONALE = (
    "Whoever can send SQL as the application role, by an injection say, sets it and is bound no longer; without it these "
    "policies hold. A role of its own for such work, named in the policies' TO, cannot be taken by a SET."
)
_ESCALATED_TITLE = "SQL sent as the application role can lift row security"
_ESCALATED_RATIONALE = (
    "Whoever can send SQL as the application role, by an injection say, needs no flaw in a policy: what the role may do "
    "beside reading and writing takes the policies away. The fewer such rights it holds, the less an injection is worth."
)


def _title(leak: Leak, *, shared: bool) -> str:
    if leak.channel == "fed":
        return _FED_TITLE
    if leak.escalates:
        return _ESCALATED_TITLE
    if leak.opened:
        return _OPENED_TITLE
    if shared:
        return _SHARED_TITLE
    if leak.constraint:
        return _REFERENCE_TITLE if leak.breaks == "forge" else _CONSTRAINT_TITLE
    return _TITLES[leak.breaks]


def as_finding(catalog: Catalog, told: Told, replay: str) -> Finding:
    """The finding of a leak that ``replay`` has shown again; values of tenants stay in the replay script, whose rows are synthetic."""
    leak = told.leak
    relation = catalog.find_relation(leak.relation)
    function = catalog.function(leak.function) if leak.function else None
    shared = leak.owner == SHARED and leak.breaks == "write"
    usual: Severity = "medium" if leak.breaks == "interference" else "high" if shared or leak.opened else "critical"
    severity = leak.severity or usual
    thing = leak.own or (function.signature if function else relation.qualified if relation else "unknown")
    at_stake = catalog.find_relation(leak.changed) or relation
    if relation is not None and relation.is_partition and at_stake is not None and at_stake.oid in relation.parents:
        at_stake = relation  # what stands in the partition stands in its table too
    return Finding(
        check=f"PROBE-{leak.breaks.upper()}",
        source="probe",
        title=_title(leak, shared=shared),
        severity=severity,
        object=thing,
        message=_message(leak, thing, at_stake.qualified if at_stake else "", shared=shared) + _also(catalog, told),
        property=leak.breaks,
        relation=at_stake.qualified if at_stake else "",
        command=leak.command,
        role=leak.role,
        attack=attack_text(leak),
        replay=replay,
        confirmed=True,
        fix=_revoke(catalog, told) if leak.command == "TRUNCATE" else "",
        also=tuple(catalog.relation(oid).qualified for oid in told.siblings),
        roles=told.roles if len(told.roles) > 1 else (),
        commands=told.commands if len(told.commands) > 1 else (),
        rationale=_ESCALATED_RATIONALE
        if leak.escalates
        else _OPENED_RATIONALE
        if leak.opened
        else _RATIONALE[leak.breaks],
        standards=_STANDARDS,
    )


def as_unstable(catalog: Catalog, told: Told, replay: str) -> Finding:
    """The finding of a leak that was seen and that ``replay`` did not show again: never dropped, and never confirmed."""
    said = (
        " Unstable: it was seen once and its replay did not show it again. It may hang on timing, on the server's plans "
        "or on what a script cannot set up; read the attack before you believe either."
    )
    found = as_finding(catalog, told, replay)
    return replace(found, message=found.message + said, confirmed=False)


def attack_text(leak: Leak) -> str:
    """What crosses, as a person would type it: the visits, their context and the last statement."""
    stood = ["-- rows as they may stand", *_folded(leak.found)] if leak.found else []
    lines = [*stood, f"-- logged in as {' '.join(leak.role.split())}"]
    for visit in leak.visits[:-1]:
        lines += [
            "BEGIN;",
            *_folded(visit.statements),
            "COMMIT;" if visit.commit else "ROLLBACK;",
            *(f"{one};" for one in visit.after),
            "-- the next visit on the same connection",
        ]
    lines += ["BEGIN;", *_folded((*leak.context, *leak.visits[-1].statements)), "ROLLBACK;"]
    return "\n".join(lines)


def _folded(statements: tuple[str, ...]) -> list[str]:
    """Statements with repetitions counted."""
    found: list[str] = []
    for statement, group in groupby(statements):
        times = len(list(group))
        found.append(f"{statement};" + (f"  -- {times} times" if times > 1 else ""))
    return found


def _message(leak: Leak, thing: str, at_stake: str, *, shared: bool) -> str:
    who = f"As {leak.role}" + (f" ({leak.persona})" if leak.persona not in ("", "tenant") else "")
    acting = "acting for one tenant" if leak.actor else "with no valid context"
    ended = f"COPY into {thing}" if isinstance(leak.statement, statement_text.Copy) else f"{leak.command} on {thing}"
    program = f"a program that ends in {ended}" if len(leak.visits[-1].statements) > 1 else ended
    if leak.escalates and leak.breaks == "interference":
        said = f"Rows of every tenant in {thing} take their numbers from it, and INSERT fails where they collide."
        return f"Any SQL sent as {leak.role} can: {leak.opened}. {said}"
    if leak.channel == "fed":
        return f"{leak.role} (REPLICATION), whom policies bind in queries, is sent rows of every tenant in {thing} by {leak.opened}."
    if leak.channel == "heard":
        doing = f"call of {thing}" if leak.function else f"{leak.command} on {thing}"
        sent = f"Each {doing} in another tenant's session then sends it values of that tenant's rows."
        return f"Any SQL sent as {leak.role} can: {leak.opened}. {sent}"
    if leak.escalates:
        end = (
            "is gone"
            if leak.channel == "gone"
            else "shows other tenants' rows"
            if leak.breaks == "read"
            else "changes other tenants' rows"
        )
        door = (
            thing if leak.channel == "gone" else f"calling {thing}" if leak.function else f"{leak.command} on {thing}"
        )
        return f"Any SQL sent as {leak.role} can: {leak.opened}. Then {door} {end}."
    if leak.opened and leak.function:
        return (
            f"A session of {leak.role} that acts for one tenant may take {leak.opened}, although the database knows who"
            f" calls: a read of {at_stake} then returned another tenant's rows."
        )
    if leak.opened:
        way = f"{program} is one way. Without it that way is closed."
        return f"A session of {leak.role} that sets {leak.opened} reaches other tenants' rows: {way}"
    if leak.own or leak.function:
        program = f"the application's own statement {thing}" if leak.own else f"calling {thing}"
    match leak.breaks:
        case "read":
            how = {
                "rows": "returned",
                "error": "printed in its error message",
                "notice": "printed in a notice",
                "digest": "changed",
            }
            said = f"{who}, {acting}, {program} {how[leak.channel]} values that stand only in another tenant's rows."
        case "write":
            owner = "shared by all tenants" if shared else "of another tenant"
            program = ended if shared else program  # what follows is only another tenant's look at it
            said = f"{who}, {acting}, {program} changed rows {owner} in {at_stake}."
        case "forge" if leak.constraint:
            said = f"{who}, {acting}, {program} stored a reference to another tenant's row: {leak.constraint} does not hold."
        case "forge":
            said = f"{who}, {acting}, {program} put a row into another tenant's part of {at_stake}."
            said += " Where one stands already its unique key refuses." if leak.vacated else ""
        case "interference":
            through = f" through {leak.constraint}" if leak.constraint else ""
            said = f"{who}, {acting}, {program} tells{through} of other tenants' rows: with them, {leak.mark}."
        case "closed":
            reached = "tenants' rows" if leak.owner != SHARED else "rows that belong to no tenant and that none sees"
            said = f"{who}, {acting}, {leak.command} on {thing} reached {reached}."
        case _:
            doing = f"calling {thing}" if leak.function else f"{leak.command} on {thing}"
            said = f"{who}, after another tenant's visit on the same connection, {doing} reached that tenant's rows."
            said += f" With {leak.closed_by} between the two visits it does not." if leak.closed_by else ""
    blind = " It reads no column, so the SELECT policies do not stand in its way." if _reads_nothing(leak) else ""
    return said + blind


def _also(catalog: Catalog, told: Told) -> str:
    others = [command for command in told.commands if command != told.leak.command]
    by = f" Also by {' and '.join(others)}." if others else ""
    roles = [role for role in told.roles if role != told.leak.role]
    by += f" The same as {', '.join(roles)}." if roles else ""
    siblings = [catalog.relation(oid).qualified for oid in told.siblings]
    if not siblings:
        return by
    most = len(siblings) if told.leak.command == "TRUNCATE" else 5
    shown = ", ".join(siblings[:most]) + (f" and {len(siblings) - most} more" if len(siblings) > most else "")
    return f"{by} The same in {shown}."


def _revoke(catalog: Catalog, told: Told) -> str:
    """Takes the privilege from those who gave it to the roles: themselves, what they inherit from, or PUBLIC."""
    visibility = visibility_of(catalog)
    named = [catalog.role_named(role) for role in told.roles]
    held = {PUBLIC}.union(*(visibility.inherits(role.oid) for role in named if role is not None))
    lines = []
    for relation in (catalog.relation(oid) for oid in (told.leak.relation, *told.siblings)):
        from_ = sorted(
            {g.grantee for g in catalog.grants_on("relation")
             if g.object == relation.oid and g.privilege == "TRUNCATE"
             and g.grantee in held and g.grantee != relation.owner}
        )  # fmt: skip
        whom = [sql.SQL("PUBLIC") if oid == PUBLIC else sql.Identifier(catalog.role_name(oid)) for oid in from_]
        if whom:
            lines.append(
                statement_text.said(
                    "REVOKE TRUNCATE ON {} FROM {};", statement_text.name(relation), sql.SQL(", ").join(whom)
                )
            )
    return "\n".join(lines)


def _reads_nothing(leak: Leak) -> bool:
    statement = leak.statement.upper()
    return leak.command in ("UPDATE", "DELETE") and " WHERE " not in statement and " RETURNING " not in statement
