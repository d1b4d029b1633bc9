"""Functions that run as somebody whom no policy binds."""

import re
from collections.abc import Iterator

from rlsaudit.checks._bodies import reading
from rlsaudit.checks._deciders import deciders
from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import listed, routine
from rlsaudit.checks._known import READABLE, callers, exempted, find_relation, grantees, named
from rlsaudit.checks._rows import Exposure
from rlsaudit.checks._sql import legible

from rlsaudit.catalog.grants import PUBLIC
from rlsaudit.catalog.policies import settings_read
from rlsaudit.catalog.relations import Relation
from rlsaudit.catalog.routines import Function
from rlsaudit.check import Example, Hit, Subject, check
from rlsaudit.finding import SEVERITIES, Severity

_SESSION = re.compile(r"\b(current_user|session_user|current_role|pg_backend_pid)\b", re.IGNORECASE)
_SCALAR = re.compile(r"^(?:boolean|smallint|integer|bigint|uuid|text|character varying|name|oid)$")


@check(
    "RLS302",
    title="A SECURITY DEFINER function reaches tenant data past row security",
    severity="critical",
    rationale=(
        "Inside a SECURITY DEFINER function the caller is its owner. When no policy binds the owner, only the function's"
        " own conditions keep tenants apart, and every caller may name any argument."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-6", "CWE-269"),
    examples=(
        Example(
            setup=SOUND,
            bad=(
                "CREATE FUNCTION invoice(wanted int) RETURNS SETOF invoices LANGUAGE sql STABLE\n"
                "  SECURITY DEFINER SET search_path = pg_catalog, pg_temp\n"
                "  AS $$ SELECT * FROM public.invoices WHERE id = wanted $$;"
            ),
            good=(
                "CREATE FUNCTION invoice(wanted int) RETURNS SETOF invoices LANGUAGE sql STABLE\n"
                "  SECURITY DEFINER SET search_path = pg_catalog, pg_temp\n"
                "  AS $$ SELECT * FROM public.invoices WHERE id = wanted\n"
                "        AND tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::int $$;"
            ),
        ),
        Example(
            setup=SOUND,
            bad=(
                "CREATE FUNCTION settle(tenant int) RETURNS void LANGUAGE plpgsql SECURITY DEFINER\n"
                "  SET search_path = pg_catalog, pg_temp AS $$ BEGIN\n"
                "  IF current_setting('app.tenant_id', true) IS NULL THEN RAISE 'no tenant'; END IF;\n"
                "  UPDATE public.invoices SET amount = 0 WHERE tenant_id = tenant; END $$;"
            ),
            good=(
                "CREATE FUNCTION settle(tenant int) RETURNS void LANGUAGE plpgsql SECURITY DEFINER\n"
                "  SET search_path = pg_catalog, pg_temp AS $$ BEGIN\n"
                "  IF tenant::text <> current_setting('app.tenant_id') THEN RAISE 'not yours'; END IF;\n"
                "  UPDATE public.invoices SET amount = 0 WHERE tenant_id = tenant; END $$;"
            ),
        ),
    ),
)
def definer_function(subject: Subject) -> Iterator[Hit]:
    for function in subject.catalog.functions:
        if not function.security_definer or function.extension or function.returns in ("trigger", "event_trigger"):
            continue
        who = callers(subject, function)
        if not who:
            continue
        readable = function.language in READABLE and legible(function.source)
        found = _read(subject, function, who) if readable else _unread(subject, function, who)
        if found is not None:
            yield found


def _read(subject: Subject, function: Function, who: list[str]) -> Hit | None:
    done = reading(subject, function)
    judged: list[tuple[Severity, Exposure, tuple[Relation, str], str]] = []
    for one, through in [*((one, "") for one in done.exposures), *_through(subject, function, frozenset())]:
        past = exempted(subject, function.owner, one.relation)
        if past is not None and not one.shadowed:
            judged.append((_severity(subject, function, one, past[0], done.raises), one, past, through))
    if not judged:
        return None
    severity, worst, past, through = min(judged, key=lambda one: SEVERITIES.index(one[0]))
    if severity == "info" and not done.complete:
        severity = "low"
    detail = (
        f"{function.signature} runs as {subject.catalog.role_name(function.owner)}, whom no policy of"
        f" {past[0].qualified} binds ({past[1]}), and {listed(who)} may call it: {_said(subject, function, worst, through)}."
    )
    public = _by_default(subject, function)
    if public and severity in ("critical", "high"):
        detail += " EXECUTE comes from PUBLIC, as by default."
    return Hit(
        function.signature, detail, _fix(function, public), severity, relation=past[0].qualified, role=listed(who)
    )


def _through(subject: Subject, function: Function, seen: frozenset[int]) -> Iterator[tuple[Exposure, str]]:
    """What functions do that it calls and that run as its owner; how arguments reach them is not followed."""
    if len(seen) > 3:
        return
    called = {one.oid: one for name in reading(subject, function).calls for one in named(subject, function, name)}
    for inner in called.values():
        if inner.security_definer or inner.oid in seen or inner.oid == function.oid:
            continue
        for one in reading(subject, inner).exposures:
            if one.label == "open":
                yield one, inner.signature
        yield from ((one, inner.signature) for one, _ in _through(subject, inner, seen | {function.oid, inner.oid}))


def _severity(subject: Subject, function: Function, one: Exposure, relation: Relation, raises: bool) -> Severity:
    if one.label in ("session", "constant"):
        return "info"
    if not one.loose:
        return "low"
    kind = subject.tenancy.of(relation.oid).kind
    if one.command == "INSERT" and kind in ("registry", "principal"):
        return "low"
    if one.command == "SELECT" and not function.returns_set:
        if function.oid in deciders(subject) and _SCALAR.match(function.returns):
            return "low"
        if function.returns == "void":
            return "medium" if raises else "low"
        if function.returns == "boolean" or one.condition:
            return "medium"
    return "high" if kind in ("registry", "principal") else "critical"


def _said(subject: Subject, function: Function, one: Exposure, through: str) -> str:
    verb = {"SELECT": "reads", "INSERT": "writes", "UPDATE": "changes", "DELETE": "deletes"}.get(one.command, "changes")
    what = f"{f'through {through} ' if through else ''}it {verb} {one.relation.qualified}"
    if one.label in ("person", "argument") and one.arguments and not one.gated:
        return (
            f"{what} by {listed(one.arguments)}, which the caller chooses, and holds nothing there against the session"
        )
    if one.label == "open" and not one.gated:
        return f"{what} on some way without holding its rows against the session's tenant"
    if one.label == "secret":
        return f"{what} by a secret that the caller must know"
    if one.gated:
        return f"{what} for every tenant after a test of the session alone"
    return f"{what}, and only its own conditions keep tenants apart"


def _by_default(subject: Subject, function: Function) -> bool:
    """Whether callers hold EXECUTE through PUBLIC alone."""
    held = grantees(subject).get(function.oid, frozenset())
    mine = {oid for role in subject.tenancy.roles for oid in subject.visibility.inherits(role.oid)}
    return PUBLIC in held and not held & mine


def _fix(function: Function, public: bool) -> str:
    if public:
        return f"REVOKE EXECUTE ON {routine(function)} {function.signature} FROM PUBLIC;"
    return f"ALTER {routine(function)} {function.signature} SECURITY INVOKER;"


def _unread(subject: Subject, function: Function, who: list[str]) -> Hit | None:
    """A function in a language that is not read here, or too long to be: only the names in its text count."""
    names = dict.fromkeys(re.findall(r"[\w$]+", f"{function.source} {function.source.lower()}"))
    relations = (find_relation(subject, function, (name,)) for name in names)
    past = next((found for r in relations if r and (found := exempted(subject, function.owner, r))), None)
    if past is None:
        return None
    how = function.language if legible(function.source) else "too long to be read"
    looks = bool(settings_read(subject.catalog, function.oid)) or bool(_SESSION.search(function.source))
    detail = (
        f"{function.signature} ({how}) runs as {subject.catalog.role_name(function.owner)}, whom no policy"
        f" of {past[0].qualified} binds ({past[1]}), and {listed(who)} may call it; its text names the table"
        f" {'and reads' if looks else 'but never reads'} the session's context."
    )
    public = _by_default(subject, function)
    return Hit(
        function.signature,
        detail,
        _fix(function, public),
        "low" if looks else "high",
        relation=past[0].qualified,
        role=listed(who),
    )
