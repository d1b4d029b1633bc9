"""SQL made of the caller's text, run with more rights than the caller has."""

import re
from collections.abc import Iterator

from rlsaudit.checks._bodies import reading
from rlsaudit.checks._dynamic import TAKES_SQL
from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import listed, routine
from rlsaudit.checks._known import callers, exempted, fired_by

from rlsaudit.catalog.relations import Relation
from rlsaudit.catalog.routines import Function
from rlsaudit.check import Example, Hit, Subject, check
from rlsaudit.finding import SEVERITIES, Severity

_BUILDS = re.compile(rf"\b(?:execute|{'|'.join(sorted(TAKES_SQL))})\b", re.IGNORECASE)
_SEARCH = """\
CREATE FUNCTION search(wanted text) RETURNS SETOF invoices LANGUAGE plpgsql STABLE SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp AS $$ BEGIN
  RETURN QUERY EXECUTE 'SELECT * FROM public.invoices WHERE tenant_id = $1 AND amount::text LIKE ' || {wanted}
    USING current_setting('app.tenant_id')::int; END $$;"""


@check(
    "RLS311",
    title="The caller's text becomes SQL that runs past row security",
    severity="critical",
    rationale=(
        "Text that is put into SQL without quotes becomes part of it. In a SECURITY DEFINER function it runs with the"
        " owner's rights, so a caller can write any query, whatever conditions stand around it."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.28", "NIST 800-53 SI-10", "CWE-89"),
    examples=(
        Example(
            setup=SOUND,
            bad=_SEARCH.format(wanted="'''' || wanted || ''''"),
            good=_SEARCH.format(wanted="quote_literal(wanted)"),
        ),
        Example(
            setup=SOUND,
            bad=(
                "CREATE FUNCTION rows_of(wanted text) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER\n"
                "  SET search_path = pg_catalog, pg_temp AS $$ DECLARE found bigint; BEGIN\n"
                "  EXECUTE format('SELECT count(*) FROM public.%I', wanted) INTO found; RETURN found; END $$;"
            ),
            good=(
                "CREATE FUNCTION rows_of(wanted text) RETURNS bigint LANGUAGE plpgsql SECURITY INVOKER\n"
                "  SET search_path = pg_catalog, pg_temp AS $$ DECLARE found bigint; BEGIN\n"
                "  EXECUTE format('SELECT count(*) FROM public.%I', wanted) INTO found; RETURN found; END $$;"
            ),
        ),
    ),
)
def dynamic_sql(subject: Subject) -> Iterator[Hit]:
    triggers: dict[int, list[tuple[Relation, list[str]]]] = {}
    for trigger in subject.catalog.triggers:
        relation = subject.catalog.find_relation(trigger.relation)
        if relation is not None and (who := fired_by(subject, trigger)):
            triggers.setdefault(trigger.function, []).append((relation, who))
    for function in subject.catalog.functions:
        if function.extension or not _BUILDS.search(function.source):
            continue
        found: list[Hit] = []
        for row, who in triggers.get(function.oid, []):
            found += _hits(subject, function, row, who)
        if function.returns not in ("trigger", "event_trigger"):
            found += _hits(subject, function, None, callers(subject, function))
        if found:
            yield min(found, key=lambda one: SEVERITIES.index(one.severity or "low"))


def _hits(subject: Subject, function: Function, row: Relation | None, who: list[str]) -> Iterator[Hit]:
    done = reading(subject, function, row)
    if not who or not (done.injected or done.chosen):
        return
    reached = _reached(subject, function)
    fix = f"ALTER {routine(function)} {function.signature} SECURITY INVOKER;"
    rights = (
        f"the rights of {subject.catalog.role_name(function.owner)}"
        if function.security_definer
        else "the caller's rights"
    )
    names = [name for name, looked_at in done.injected.items() if not looked_at]
    if done.injected:
        name = (names or list(done.injected))[0]
        severity: Severity = (
            "low" if not function.security_definer or not names else "critical" if reached else "medium"
        )
        detail = f"{function.signature} puts {name} into SQL without quotes and runs it with {rights}"
        detail += (
            f", whom no policy of {reached} binds: {listed(who)} can make it any query." if reached and names else "."
        )
        yield Hit(function.signature, detail, fix, severity, relation=reached or "", role=listed(who))
    elif function.security_definer and reached:
        detail = (
            f"{function.signature} runs SQL on the table that {done.chosen[0]} names, with {rights}, whom no policy of"
            f" {reached} binds: {listed(who)} can name any table."
        )
        yield Hit(function.signature, detail, fix, "critical", relation=reached, role=listed(who))


def _reached(subject: Subject, function: Function) -> str | None:
    """A tenant table that the function's owner reads past its policies, or whose policies it can drop."""
    if not function.security_definer:
        return None
    for oid in subject.tenancy.tenant_data():
        relation = subject.catalog.relation(oid)
        if not relation.holds_rows:
            continue
        if exempted(subject, function.owner, relation) and subject.visibility.may(function.owner, relation, "SELECT"):
            return relation.qualified
        if subject.visibility.owns(function.owner, relation.owner):
            return relation.qualified
    return None
