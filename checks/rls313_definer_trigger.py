"""Triggers that run as somebody whom no policy binds."""

from collections.abc import Iterator

from rlsaudit.checks._bodies import reading
from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import listed
from rlsaudit.checks._known import exempted, fired_by
from rlsaudit.checks._rows import Exposure, Reading

from rlsaudit.catalog.relations import Relation
from rlsaudit.catalog.routines import Function
from rlsaudit.check import Example, Hit, Subject, check
from rlsaudit.finding import SEVERITIES, Severity

_ACCOUNTS = """\
CREATE TABLE totals (id int PRIMARY KEY, tenant_id int NOT NULL, amount int NOT NULL DEFAULT 0);
ALTER TABLE totals ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON totals USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::int);
GRANT SELECT ON totals TO app;
"""
_TRIGGER = """\
CREATE FUNCTION add_up() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN
  {statement}; RETURN NEW; END $$;
CREATE TRIGGER add_up AFTER INSERT ON invoices FOR EACH ROW EXECUTE FUNCTION add_up();"""

_VIEW = """\
CREATE VIEW mine WITH (security_invoker = true) AS SELECT id, tenant_id, amount FROM invoices;
GRANT SELECT, INSERT ON mine TO app;
CREATE FUNCTION put() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN
  INSERT INTO public.invoices (id, tenant_id, amount) VALUES (NEW.id, {tenant}, NEW.amount); RETURN NEW; END $$;
CREATE TRIGGER put INSTEAD OF INSERT ON mine FOR EACH ROW EXECUTE FUNCTION put();"""


@check(
    "RLS313",
    title="A SECURITY DEFINER trigger reaches other tenants' rows",
    severity="high",
    rationale=(
        "A SECURITY DEFINER trigger runs as its owner for every row that a tenant writes. What it looks up or writes by"
        " values of that row, other than the tenant's key, the tenant chooses; an error it raises tells what it found."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-4", "CWE-441"),
    examples=(
        Example(
            setup=SOUND + _ACCOUNTS,
            bad=_TRIGGER.format(
                statement="UPDATE public.totals SET amount = amount + NEW.amount WHERE id = NEW.amount"
            ),
            good=_TRIGGER.format(
                statement="UPDATE public.totals SET amount = amount + NEW.amount WHERE tenant_id = NEW.tenant_id"
            ),
        ),
        Example(
            setup=SOUND,
            bad=_VIEW.format(tenant="NEW.tenant_id"),
            good=_VIEW.format(tenant="NULLIF(current_setting('app.tenant_id', true), '')::int"),
        ),
    ),
)
def definer_trigger(subject: Subject) -> Iterator[Hit]:
    found: dict[int, list[Hit]] = {}
    for trigger in subject.catalog.triggers:
        function, row = subject.catalog.function(trigger.function), subject.catalog.find_relation(trigger.relation)
        if function is None or row is None or not function.security_definer or function.extension:
            continue
        who = fired_by(subject, trigger)
        hit = _hit(subject, function, row, who) if who else None
        if hit is not None:
            found.setdefault(function.oid, []).append(hit)
    for hits in found.values():
        yield min(hits, key=lambda one: SEVERITIES.index(one.severity or "low"))


def _hit(subject: Subject, function: Function, row: Relation, who: list[str]) -> Hit | None:
    done = reading(subject, function, row)
    judged: list[tuple[Severity, Exposure, str]] = []
    for one in done.exposures:
        past = exempted(subject, function.owner, one.relation)
        if past is not None and one.loose and (severity := _severity(done, one)) is not None:
            judged.append((severity, one, past[1]))
    if not judged:
        return None
    severity, worst, why = min(judged, key=lambda one: SEVERITIES.index(one[0]))
    verb = {"INSERT": "writes rows into", "UPDATE": "changes rows of", "DELETE": "deletes rows of"}.get(
        worst.command, "looks into"
    )
    write = "write" if len(who) > 1 else "writes"
    detail = (
        f"When {listed(who)} {write} {row.qualified}, {function.signature} {verb} {worst.relation.qualified} as"
        f" {subject.catalog.role_name(function.owner)} ({why}), {_by(worst)}"
    )
    detail += (
        ": its error tells whether another tenant has such a row."
        if severity == "medium" and worst.command == "SELECT"
        else "."
    )
    fix = f"ALTER FUNCTION {function.signature} SECURITY INVOKER;"
    return Hit(function.signature, detail, fix, severity, relation=worst.relation.qualified, role=listed(who))


def _severity(done: Reading, one: Exposure) -> Severity | None:
    if one.command != "SELECT":
        return "high"
    if any(target.startswith("new.") for target in one.targets):
        return "medium" if one.aggregate else "high"
    if done.raises and (one.condition or one.targets or not one.aggregate):
        return "medium"
    return "low"


def _by(one: Exposure) -> str:
    if one.arguments:
        return f"found by {listed(one.arguments)} instead of the row's tenant"
    return "without holding them against the row's tenant"
