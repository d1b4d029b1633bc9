"""Context functions whose answer the planner may keep for the next tenant."""

from collections.abc import Iterator

from rlsaudit.checks._context import Asked, asked, session_reads
from rlsaudit.checks._examples import PROTECTED, TENANT
from rlsaudit.checks._fixes import several
from rlsaudit.checks._openings import tenant_settings

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.identifiers import qualified, quote
from rlsaudit.catalog.policies import default_expression, index_expressions
from rlsaudit.catalog.routines import Function
from rlsaudit.check import Example, Hit, Subject, check
from rlsaudit.finding import Severity

_FUNCTION = """\
CREATE FUNCTION tenant() RETURNS int LANGUAGE {} AS $$ {} $$;
CREATE POLICY tenant ON invoices USING (tenant_id = tenant());"""
_BODY = "SELECT NULLIF(current_setting('app.tenant_id', true), '')::int"
_BLOCK = "BEGIN RETURN NULLIF(current_setting('app.tenant_id', true), '')::int; END"


@check(
    "RLS401",
    title="A context function is IMMUTABLE",
    severity="critical",
    rationale=(
        "The planner replaces an IMMUTABLE call by its result. A prepared statement, or a statement inside PL/pgSQL,"
        " then keeps the tenant of the session's first plan and shows that tenant's rows to the next."
    ),
    standards=("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-4", "CWE-668"),
    examples=(
        Example(setup=PROTECTED, bad=_FUNCTION.format("plpgsql IMMUTABLE", _BLOCK),
                good=_FUNCTION.format("plpgsql STABLE", _BLOCK)),
        Example(setup=PROTECTED, bad=_FUNCTION.format("sql IMMUTABLE", _BODY), good=_FUNCTION.format("sql STABLE", _BODY)),
        Example(
            setup=PROTECTED,
            bad=(
                f"CREATE FUNCTION tenant() RETURNS int LANGUAGE sql IMMUTABLE AS $$ {_BODY} $$;\n"
                "CREATE FUNCTION mine(int) RETURNS boolean LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN $1 = tenant(); END $$;\n"
                "CREATE POLICY tenant ON invoices USING (mine(tenant_id));"
            ),
            good=(
                "CREATE FUNCTION same(int, int) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT $1 = $2 $$;\n"
                f"CREATE POLICY tenant ON invoices USING ({TENANT} AND same(tenant_id, tenant_id));"
            ),
        ),
    ),
)  # fmt: skip
def immutable_context(subject: Subject) -> Iterator[Hit]:
    known = {one.function.oid: one for one in asked(subject)}
    for function in subject.catalog.functions:
        if function.volatility != "immutable" or function.extension is not None:
            continue
        reads = session_reads(subject, function)
        if not reads:
            continue
        one = known.get(function.oid)
        if one is not None:
            yield _in_policies(subject, one, reads)
        elif stored := tuple(_stored(subject, function)):
            yield Hit(
                function.signature,
                f"{function.signature} is IMMUTABLE but reads {several(reads)}, and {several(what for what, _ in stored)}"
                " keeps what it said for whoever wrote the row: other sessions then meet that tenant's value.",
                "\n".join([*(fix for _, fix in stored), _stable(function)]),
                "medium",
            )
        elif _of_tenants(subject, reads):
            yield Hit(
                function.signature,
                f"{function.signature} is IMMUTABLE but reads {several(reads)}; a prepared statement that calls it keeps the"
                " first tenant's value. No policy calls it.",
                _stable(function),
                "low",
            )


def _in_policies(subject: Subject, one: Asked, reads: tuple[str, ...]) -> Hit:
    tables = several(relation.qualified for relation in one.relations)
    start = f"{one.function.signature}, which policies of {tables} call, is IMMUTABLE but reads {several(reads)}: "
    if one.arguments == "row":
        detail = start + "it is evaluated for each row, so only its mark is wrong."
        severity: Severity = "low"
    else:
        detail = start + (
            "a prepared statement or a PL/pgSQL function planned for one tenant keeps that tenant's value and shows its"
            " rows to the next one on the connection."
        )
        worst: Severity = "critical" if _of_tenants(subject, reads) else "high"
        severity = "medium" if one.arguments == "unknown" else worst
    relation = one.relations[0].qualified if len(one.relations) == 1 else ""
    return Hit(one.function.signature, detail, _stable(one.function), severity, relation=relation)


def _of_tenants(subject: Subject, reads: tuple[str, ...]) -> bool:
    """Whether what it reads tells tenants apart: their setting, the role, a table."""
    names = tenant_settings(subject)
    return any(not what.startswith("the setting ") or what.removeprefix("the setting ") in names for what in reads)


def _stored(subject: Subject, function: Function) -> Iterator[tuple[str, str]]:
    """Indexes and generated columns that hold the function's results, each with the SQL that removes it."""
    catalog = subject.catalog
    for index in catalog.indexes:
        relation = catalog.find_relation(index.relation)
        if relation is None or not (index.expressions_tree or index.predicate):
            continue
        named = f"{function.name}(" in (index.predicate or "")
        if named or any(_calls(one, function) for one in index_expressions(catalog, index)):
            name = qualified(relation.schema, index.name)
            yield f"the index {name} on {relation.qualified}", f"DROP INDEX {name};"
    for relation in catalog.relations:
        for column in relation.columns:
            if not column.generated or (tree := default_expression(catalog, relation, column)) is None:
                continue
            if _calls(tree, function):
                name = quote(column.name)
                drop = f"ALTER TABLE {relation.qualified} ALTER COLUMN {name} DROP EXPRESSION;"
                yield f"the generated column {relation.qualified}.{name}", drop


def _calls(expression: e.Expression, function: Function) -> bool:
    return any(isinstance(part, e.Call) and part.function == function.oid for part in e.walk(expression))


def _stable(function: Function) -> str:
    return f"ALTER FUNCTION {function.signature} STABLE;"
