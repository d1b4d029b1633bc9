"""An argument that a column of the same name hides."""

import re
from collections.abc import Iterator

from rlsaudit.checks._bodies import reading
from rlsaudit.checks._deciders import deciders
from rlsaudit.checks._examples import PROTECTED
from rlsaudit.checks._fixes import listed, policy_name
from rlsaudit.checks._known import callers, exempted
from rlsaudit.checks._rows import Exposure

from rlsaudit.catalog.identifiers import literal, quote, remark
from rlsaudit.catalog.routines import Function
from rlsaudit.check import Example, Hit, Subject, check
from rlsaudit.finding import Severity

_MEMBERS = """\
CREATE TABLE members (user_name text NOT NULL, tenant_id int NOT NULL, PRIMARY KEY (user_name, tenant_id));
GRANT SELECT ON members TO app;
"""
_HELPER = """\
CREATE FUNCTION is_member(tenant_id int) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (SELECT FROM public.members m
                 WHERE m.tenant_id = {argument} AND m.user_name = current_setting('app.user', true)) $$;
CREATE POLICY tenant ON invoices USING (is_member(tenant_id));"""


@check(
    "RLS310",
    title="A column hides the argument that it is compared with",
    severity="critical",
    rationale=(
        "In a query of an SQL function a column wins over an argument of the same name (in plpgsql with #variable_conflict"
        " use_column). The comparison then holds for every row, and the test that the function was written for is none."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.28", "NIST 800-53 AC-3", "CWE-697"),
    examples=(
        Example(
            setup=PROTECTED + _MEMBERS,
            bad=_HELPER.format(argument="tenant_id"),
            good=_HELPER.format(argument="is_member.tenant_id"),
        ),
    ),
)
def argument_shadowed(subject: Subject) -> Iterator[Hit]:
    for function in subject.catalog.functions:
        if function.extension or function.returns in ("trigger", "event_trigger") or not any(function.argument_names):
            continue
        hidden = [one for one in reading(subject, function).exposures if one.shadowed]
        if not hidden:
            continue
        policies = deciders(subject).get(function.oid, ())
        protected = [
            p
            for p in policies
            if (r := subject.catalog.find_relation(p.relation)) and subject.tenancy.of(r.oid).tenant_data
        ]
        where = listed(policy_name(p, subject.catalog.relation(p.relation)) for p in protected)
        one = hidden[0]
        detail = (
            f"In {function.signature} the condition on {one.relation.qualified} compares its column {one.shadowed} with"
            f" itself, because the column hides the argument {one.shadowed}"
        )
        detail += f": {where} lets rows through that the argument should have kept out." if where else "."
        severity = "critical" if protected else _severity(subject, function, hidden)
        yield Hit(function.signature, detail, _fix(function, one.shadowed), severity, relation=one.relation.qualified)


def _severity(subject: Subject, function: Function, hidden: list[Exposure]) -> Severity:
    """By what the function reaches past row security for an application role."""
    reached = any(exempted(subject, function.owner, one.relation) for one in hidden)
    return "critical" if function.security_definer and reached and callers(subject, function) else "low"


def _fix(function: Function, name: str) -> str:
    """The same function with the argument written so that no column hides it."""
    bare, meant = re.escape(name), f"{quote(function.name)}.{quote(name)}"
    right = rf"((?:\w+\.)?\b{bare}\s*=\s*)\b{bare}\b(?!\s*[.(])"
    left = rf"(?<![\w.])\b{bare}\b(\s*=\s*\w+\.{bare}\b)"
    source = re.sub(right, lambda m: m.group(1) + meant, function.source)
    if source == function.source:
        source = re.sub(left, lambda m: meant + m.group(1), source)
    simple = (
        function.returns not in ("record", "trigger")
        and "" not in function.argument_names
        and function.body_tree is None
    )
    if source == function.source or not simple or function.kind != "function":
        return remark(f"in {function.signature}, write {meant} for the argument")
    arguments = ", ".join(
        f"{quote(one)} {kind}" for one, kind in zip(function.argument_names, function.argument_types, strict=True)
    )
    lines = [
        f"CREATE OR REPLACE FUNCTION {function.qualified}({arguments})",
        f"RETURNS {'SETOF ' if function.returns_set else ''}{function.returns} LANGUAGE {function.language}"
        f" {function.volatility.upper()}{' STRICT' if function.strict else ''}"
        f"{' SECURITY DEFINER' if function.security_definer else ''}{' LEAKPROOF' if function.leakproof else ''}",
        *(f"SET {setting.partition('=')[0]} = {_value(setting)}" for setting in function.settings),
        f"AS {literal(source)};",
    ]
    return "\n".join(lines)


def _value(setting: str) -> str:
    name, _, value = setting.partition("=")
    if value == '""':  # how an empty list is stored
        return "''"
    return value if name.lower() == "search_path" and value else literal(value)
