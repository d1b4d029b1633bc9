"""LEAKPROOF on functions that tell what they see."""

import re
from collections.abc import Iterator

from rlsaudit.checks._bodies import reading
from rlsaudit.checks._examples import SOUND
from rlsaudit.checks._fixes import listed
from rlsaudit.checks._known import READABLE, callers
from rlsaudit.checks._sql import Token, parse, walk

from rlsaudit.catalog.routines import Function
from rlsaudit.check import Example, Hit, Subject, check
from rlsaudit.finding import Severity

_TELLS = frozenset(
    {
        "raise",
        "insert",
        "update",
        "delete",
        "execute",
        "notify",
        "pg_notify",
        "set_config",
        "assert",
        "perform",
        "dblink",
    }
)
_FUNCTION = (
    "CREATE FUNCTION seems(amount int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE{mark}\n"
    "  AS $$ BEGIN RAISE NOTICE 'saw %', amount; RETURN true; END $$;"
)


@check(
    "RLS316",
    title="A LEAKPROOF function tells what it sees",
    severity="high",
    rationale=(
        "The planner runs LEAKPROOF functions of a query before the conditions of policies and security barriers, on rows"
        " that these would have left out. One that raises, logs or can fail by its argument shows those rows."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-4", "CWE-209"),
    examples=(Example(setup=SOUND, bad=_FUNCTION.format(mark=" LEAKPROOF"), good=_FUNCTION.format(mark="")),),
)
def leakproof(subject: Subject) -> Iterator[Hit]:
    for function in subject.catalog.functions:
        if not function.leakproof or function.extension or function.kind != "function" or not function.argument_types:
            continue
        who = callers(subject, function)
        if not who:
            continue
        severity, why = _judged(subject, function)
        yield Hit(
            function.signature,
            f"{function.signature} is LEAKPROOF and {why}: a query of {listed(who)} can run it on rows that policies hide.",
            f"ALTER FUNCTION {function.signature} NOT LEAKPROOF;",
            severity,
            role=listed(who),
        )


def _judged(subject: Subject, function: Function) -> tuple[Severity, str]:
    if function.language not in READABLE:
        return "low", f"is written in {function.language}, which is not read here"
    tokens = [node for node in walk(parse(function.source)) if isinstance(node, Token)]
    words = {node.text for node in tokens if node.kind == "word"}
    if told := sorted(words & _TELLS):
        return "high", f"does {told[0].upper()}"
    if "::" in {node.text for node in tokens} or "cast" in words or {"/", "%"} & {node.text for node in tokens}:
        return "medium", "can fail by its argument"
    if calls := sorted(
        name[-1] for name in reading(subject, function).calls if not re.match(r"in$|any$|coalesce$|nullif$", name[-1])
    ):
        return "medium", f"calls {calls[0]}, which may fail by its argument"
    return "low", "holds only plain comparisons"
