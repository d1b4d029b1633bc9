"""Context that outlives the transaction it was set for."""

from collections.abc import Iterator

from rlsaudit.checks._context import context_settings, tenant_relations
from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import listed, several
from rlsaudit.checks._openings import tenant_settings
from rlsaudit.checks._routines import rewrite, tokens
from rlsaudit.checks._setters import Setter, callers, setters

from rlsaudit.check import Example, Hit, Subject, check
from rlsaudit.finding import Severity

_SET = """\
CREATE FUNCTION set_tenant(wanted int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('app.tenant_id', wanted::text, {});
END $$;"""
_PLAIN = """\
CREATE PROCEDURE set_tenant(wanted int) LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('SET {}app.tenant_id = %L', wanted);
END $$;"""


@check(
    "RLS403",
    title="A function sets the context for the whole session",
    severity="critical",
    rationale=(
        "set_config(…, false) and SET without LOCAL last until the connection ends. In a pool the next request gets the"
        " connection with the tenant of the one before, unless something resets it every single time."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 SC-4", "CWE-488"),
    examples=(
        Example(setup=SOUND, bad=_SET.format("false"), good=_SET.format("true")),
        Example(setup=SOUND, bad=_PLAIN.format(""), good=_PLAIN.format("LOCAL ")),
    ),
)
def session_wide_context(subject: Subject) -> Iterator[Hit]:
    wanted = context_settings(subject)
    found: dict[int, list[Setter]] = {}
    for setter in setters(subject):
        if setter.setting in wanted and setter.span != "transaction" and not setter.clears:
            found.setdefault(setter.function.oid, []).append(setter)
    for places in found.values():
        function = places[0].function
        who = callers(subject, function)
        if not who:
            continue
        names = several(dict.fromkeys(place.setting for place in places))
        tables = several(relation.qualified for relation in tenant_relations(subject))
        severity, tail = _consequence(subject, places, tables)
        yield Hit(
            function.signature,
            f"{function.signature}, which {listed(who)} may call, sets {names} {_how(places)}: {tail}",
            rewrite(function, [(place.old, place.new) for place in places]),
            severity,
            role=listed(who),
        )


def _how(places: list[Setter]) -> str:
    if all(place.span == "unknown" for place in places):
        return "for the transaction or for the whole session, as an argument says"
    return "for the whole session"


def _consequence(subject: Subject, places: list[Setter], tables: str) -> tuple[Severity, str]:
    names = {place.setting for place in places}
    reset = " ".join(subject.tenancy.context.reset).upper()
    if "DISCARD ALL" in reset or "RESET ALL" in reset or all(f"RESET {name.upper()}" in reset for name in names):
        return "info", "the pool resets it at check-in, and isolation depends on that."
    if _of_the_login(places):
        return "low", "the value follows from the login role, so it is right as long as a connection serves one login."
    if all(place.span == "unknown" for place in places):
        return "low", "a session-wide value would be there for the next request on the connection."
    severity: Severity = "critical" if names & tenant_settings(subject) else "high"
    return severity, (
        f"the next request on a pooled connection that sets nothing acts on {tables} as the tenant before it, unless the"
        " pool runs DISCARD ALL at every check-in."
    )


def _of_the_login(places: list[Setter]) -> bool:
    function = places[0].function
    return not function.argument_types and any(token.is_word("session_user") for token in tokens(function.source))
