"""Functions that let whoever calls them act as any tenant, where somebody is known to call."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rlsaudit.checks._context import context_settings
from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import listed, routine
from rlsaudit.checks._openings import tenant_settings
from rlsaudit.checks._routines import calls, reached, relations_read, rewrite, tokens
from rlsaudit.checks._setters import Setter, callers, setters

from rlsaudit.catalog.grants import PUBLIC
from rlsaudit.catalog.identifiers import literal, quote
from rlsaudit.catalog.relations import Column, Relation
from rlsaudit.catalog.routines import Function
from rlsaudit.check import Example, Hit, Subject, check, kept
from rlsaudit.finding import Severity
from rlsaudit.tenancy import words
from rlsaudit.tenancy.members import memberships, names_login

_SETUP = (
    SOUND
    + """\
CREATE TABLE logins (login name, tenant_id int, PRIMARY KEY (login, tenant_id));
"""
)
_FUNCTION = """\
CREATE FUNCTION act_for(wanted int) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN{}
  PERFORM set_config('app.tenant_id', wanted::text, true);
END $$;"""
_CHECKED = """
  IF NOT EXISTS (SELECT FROM public.logins l WHERE l.login = session_user AND l.tenant_id = wanted) THEN
    RAISE EXCEPTION 'not a member';
  END IF;"""
_MEMBERS = SOUND + "CREATE TABLE members (user_id int, tenant_id int, PRIMARY KEY (user_id, tenant_id));\n"
_ANY = """
  PERFORM FROM public.members m WHERE m.user_id = NULLIF(current_setting('app.user_id', true), '')::int;"""
_LOOKED_UP = _ANY.removesuffix(";") + " AND m.tenant_id = wanted;"
_NOT_FOUND = """
  IF NOT FOUND THEN RAISE EXCEPTION 'not a member'; END IF;"""
_DECIDES = ("if", "case", "raise", "assert", "strict", "for", "while", "loop", "exit")
_VERIFIES = frozenset({"crypt", "hmac", "digest", "sha224", "sha256", "sha384", "sha512", "md5", "verify"})


@check(
    "RLS404",
    title="A context function does not check who asks",
    severity="high",
    rationale=(
        "Where the database knows who is logged in, the function that chooses the tenant is the door: it has to look up"
        " that this caller belongs to that tenant. A trusted application that sets the context itself needs no such check."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.5.15", "NIST 800-53 AC-3", "CWE-862"),
    examples=(
        Example(setup=_SETUP, bad=_FUNCTION.format(""), good=_FUNCTION.format(_CHECKED)),
        Example(setup=_MEMBERS, bad=_FUNCTION.format(_LOOKED_UP), good=_FUNCTION.format(_LOOKED_UP + _NOT_FOUND)),
        Example(
            setup=_MEMBERS, bad=_FUNCTION.format(_ANY + _NOT_FOUND), good=_FUNCTION.format(_LOOKED_UP + _NOT_FOUND)
        ),
    ),
)
def unchecked_context(subject: Subject) -> Iterator[Hit]:
    names = tenant_settings(subject) & context_settings(subject)
    choosers: dict[int, Setter] = {}
    for setter in setters(subject):
        if setter.setting in names and setter.function.argument_types and not setter.clears:
            choosers.setdefault(setter.function.oid, setter)
    checked = [one.function for one in choosers.values() if _looks(subject, one.function)]
    for setter in choosers.values():
        function = setter.function
        who = callers(subject, function)
        if not who or "trigger" in function.returns:
            continue
        if function in checked:
            if function.security_definer and (why := _idle(subject, setter)):
                detail = (
                    f"{function.signature} sets {setter.setting} to whatever {listed(who)} passes: it looks a table up, but"
                    f" {why}."
                )
                yield Hit(function.signature, detail, _revoke(subject, function), "high", role=listed(who))
            continue
        known = _known(subject, setter, [one for one in checked if callers(subject, one)])
        if known is None and not function.security_definer:
            continue
        start = f"{function.signature} sets {setter.setting} to whatever {listed(who)} passes"
        if known is None:
            detail = (
                start + "; as SECURITY DEFINER it looks like a boundary, but only a trusted application may call it."
            )
            yield Hit(function.signature, detail, _revoke(subject, function), "low", role=listed(who))
            continue
        detail = f"{start} and never looks up whether the caller belongs to that tenant, although {known.said}."
        fix = _with_check(function, setter, known) or _revoke(subject, function)
        yield Hit(function.signature, detail, fix, known.severity, role=listed(who))


@dataclass(frozen=True)
class _Known:
    """How the database knows who calls."""

    said: str
    severity: Severity
    members: Relation | None = None
    user: Column | None = None
    tenant: Column | None = None
    caller: str = ""


def _looks(subject: Subject, function: Function) -> bool:
    """Whether it, or what it calls, reads who calls, a credential, or a table other than the list of tenants."""
    for one in reached(subject, function.oid):
        if any(token.is_word("session_user", "current_user", "system_user") for token in tokens(one.source)):
            return True
        if any(call.name in _VERIFIES or call.name == "current_setting" for call in calls(one.source)):
            return True
        if any(relation.oid != subject.tenancy.registry for relation in relations_read(subject, one)):
            return True
    return False


def _idle(subject: Subject, setter: Setter) -> str:
    """Why the look-up of a function that sets the tenant it is passed stops nobody; empty where it may."""
    function = setter.function
    wanted = {token.text for token in setter.value if token.kind == "word"} & set(function.argument_names)
    if function.language != "plpgsql" or not wanted or _by_caller(subject, function):
        return ""
    start = function.source.find(setter.old)
    end = start + len(setter.old)
    said = tokens(function.source)
    if start < 0 or function.source.count(setter.old) > 1:
        return ""
    if not any(token.text in wanted for token in said if not start <= token.start < end):
        return f"not for the tenant in {listed(sorted(wanted))}"
    rest = tokens(function.source[end:].partition(";")[0])
    decided = (token.is_word(*_DECIDES) for one in reached(subject, function.oid) for token in tokens(one.source))
    if any(decided) or any(token.is_word("from", "where") for token in rest):
        return ""
    return "does nothing with the answer"


def _by_caller(subject: Subject, function: Function) -> bool:
    """Whether it asks for the login or a credential, which needs no tenant."""
    return any(
        token.is_word("session_user", "current_user", "system_user") or token.text in _VERIFIES
        for one in reached(subject, function.oid)
        for token in tokens(one.source)
    )


@kept
def _memberships(subject: Subject) -> tuple[tuple[Relation, Column, Column], ...]:
    return tuple(memberships(subject.catalog, subject.tenancy))


def _known(subject: Subject, setter: Setter, checked: list[Function]) -> _Known | None:
    function = setter.function
    set_here = {one.setting for one in setters(subject) if one.function.oid == function.oid}
    for relation, user, tenant in _memberships(subject):
        if names_login(user):
            said = f"{relation.qualified} says which login belongs to which tenant"
            return _Known(said, "high", relation, user, tenant, "session_user")
    gateway = sorted(name for name in context_settings(subject) if name.startswith("request.jwt"))
    if gateway:
        return _Known(f"policies know the caller from {gateway[0]}", "high")
    acting = sorted(name for name in context_settings(subject) - set_here if words.user_like(name))
    if function.security_definer and acting:
        for relation, user, tenant in _memberships(subject):
            caller = f"NULLIF(current_setting({literal(acting[0])}, true), '')::{user.type}"
            said = f"{relation.qualified} says who belongs to which tenant and {acting[0]} who is acting"
            return _Known(said, "high", relation, user, tenant, caller)
    if checked:
        return _Known(f"{checked[0].signature}, which sets the same, does look", "medium")
    return None


def _with_check(function: Function, setter: Setter, known: _Known) -> str:
    """The function with a look-up before its first statement; empty where it cannot be written."""
    wanted = [token.text for token in setter.value if token.kind == "word" and token.text in function.argument_names]
    begin = next((token for token in tokens(function.source) if token.is_word("begin")), None)
    if function.language != "plpgsql" or not wanted or begin is None or known.members is None:
        return ""
    assert known.user is not None and known.tenant is not None
    text = function.source[begin.start : begin.end]
    body = (
        f"{text}\n  IF NOT EXISTS (SELECT FROM {known.members.qualified} AS member"
        f" WHERE member.{quote(known.user.name)} = {known.caller}"
        f" AND member.{quote(known.tenant.name)} = {quote(function.name)}.{quote(wanted[0])}) THEN\n"
        f"    RAISE EXCEPTION 'not a member of this tenant';\n  END IF;"
    )
    after = function.source[begin.end :]
    return rewrite(function, [(text + after, body + after)])


def _revoke(subject: Subject, function: Function) -> str:
    """Takes the function away from everyone who is not its owner."""
    catalog = subject.catalog
    grantees = {
        grant.grantee
        for grant in catalog.grants_on("function")
        if grant.object == function.oid and grant.grantee != function.owner
    }
    names = ["PUBLIC" if oid == PUBLIC else quote(catalog.role_name(oid)) for oid in sorted(grantees)]
    return f"REVOKE EXECUTE ON {routine(function)} {function.signature} FROM {', '.join(names or ['PUBLIC'])};"
