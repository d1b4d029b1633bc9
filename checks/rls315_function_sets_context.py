"""Functions whose definition sets the context."""

from collections.abc import Iterator

from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import listed, routine
from rlsaudit.checks._known import callers, fired_by
from rlsaudit.checks._openings import tenant_settings

from rlsaudit.catalog.routines import Function
from rlsaudit.check import Example, Hit, Subject, check

_LIST = "CREATE FUNCTION amounts() RETURNS SETOF int LANGUAGE sql STABLE{clause}\n  AS $$ SELECT amount FROM public.invoices $$;"


@check(
    "RLS315",
    title="A function's SET clause fixes the tenant",
    severity="high",
    rationale=(
        "A setting in a function's definition holds while it runs, whoever calls it. When policies read that setting,"
        " every caller works for the tenant in the definition."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-3", "CWE-284"),
    examples=(
        Example(
            setup=SOUND,
            bad=_LIST.format(clause=" SET app.tenant_id = '2'"),
            good=_LIST.format(clause=" SET statement_timeout = '2s'"),
        ),
    ),
)
def function_sets_context(subject: Subject) -> Iterator[Hit]:
    names = tenant_settings(subject) | frozenset(subject.tenancy.context.settings)
    fired: dict[int, list[str]] = {}
    for trigger in subject.catalog.triggers:
        fired.setdefault(trigger.function, []).extend(fired_by(subject, trigger))
    for function in subject.catalog.functions:
        who = fired.get(function.oid, []) if function.returns == "trigger" else callers(subject, function)
        for setting in function.settings:
            name, _, value = setting.partition("=")
            if name.lower() in names and value.strip("'\" ") and who and not function.extension:
                yield Hit(
                    function.signature,
                    f"{function.signature} runs with {name} = {value}, which policies read: {listed(who)} gets what that"
                    " value opens, whatever its own context says.",
                    _fix(function, name),
                    role=listed(who),
                )


def _fix(function: Function, name: str) -> str:
    return f"ALTER {routine(function)} {function.signature} RESET {name};"
