"""Comparisons of the tenant key that the index on it cannot answer."""

from collections.abc import Iterator

from rlsaudit.checks._examples import PROTECTED, TENANT
from rlsaudit.checks._fixes import several
from rlsaudit.checks._planner import bare_column, equalities, expression_indexed, fixed, indexed, over_column
from rlsaudit.checks._speed import Filter, at_stake, filters, found_by_key, only

from rlsaudit.catalog import expression as e
from rlsaudit.catalog.expression import Expression
from rlsaudit.check import Example, Hit, Subject, check, kept, literal, quote, remark


@check(
    "RLS604",
    title="A policy wraps the tenant key, so its index is not used",
    severity="low",
    rationale=(
        "An index on a column answers `column = value`. With a cast or a function around the column, with IS NOT"
        " DISTINCT FROM or inside CASE it does not, and every query reads the rows of all tenants although the index is"
        " there. Cast the setting, not the column; an index on the very expression helps as well."
    ),
    standards=("ISO 27001 A.8.6", "NIST 800-53 SC-5", "CWE-405"),
    examples=(
        Example(
            setup=PROTECTED,
            bad="CREATE POLICY tenant ON invoices USING (tenant_id::text = current_setting('app.tenant_id', true));",
            good=f"CREATE POLICY tenant ON invoices USING ({TENANT});",
        ),
        Example(
            setup=PROTECTED,
            bad=(
                "CREATE POLICY tenant ON invoices USING (CASE\n"
                "  WHEN NULLIF(current_setting('app.tenant_id', true), '') IS NULL THEN false\n"
                "  ELSE tenant_id = current_setting('app.tenant_id')::int END);"
            ),
            good=(
                "CREATE INDEX ON invoices ((tenant_id::text));\n"
                "CREATE POLICY tenant ON invoices USING (tenant_id::text = current_setting('app.tenant_id', true));"
            ),
        ),
    ),
)
def index_defeated(subject: Subject) -> Iterator[Hit]:
    found: dict[str, list[tuple[Filter, Expression | None]]] = {}
    for one in filters(subject):
        if one.key is None or one.relation.is_partition or not indexed(subject.catalog, one.relation, one.key):
            continue
        if found_by_key(subject, one):
            continue
        how = _how(subject, one, one.key)
        if how is not None:
            found.setdefault(how[0], []).append((one, how[1]))
    for said, users in found.items():
        relations = [one.relation for one, _ in users]
        tables = several(relation.qualified for relation in relations)
        key = quote(users[0][0].key or "")
        yield Hit(
            users[0][0].name if len(users) == 1 else f"policies that {said}",
            f"{several(one.name for one, _ in users)} {said}, which the index on {key} cannot answer, so queries of {tables}"
            " read the rows of all tenants.",
            "\n".join(dict.fromkeys(_fix(subject, one, wrapped) for one, wrapped in users)),
            at_stake(relations),
            relation=only(relations),
        )


def _how(subject: Subject, one: Filter, key: str) -> tuple[str, Expression | None] | None:
    """What stands between the column and the index, in words, and the expression around the column if that is it."""
    known, asked = _known_obstacles(subject), (e.model(one.predicate), key)
    if asked not in known:
        known[asked] = _obstacle(subject, one.predicate, key)
    found = known[asked]
    if found is None or found[1] is None or not expression_indexed(subject.catalog, one.relation, found[1]):
        return found
    return None


@kept
def _known_obstacles(subject: Subject) -> dict[tuple[Expression, str], tuple[str, Expression | None] | None]:
    return {}


def _obstacle(subject: Subject, predicate: Expression, key: str) -> tuple[str, Expression | None] | None:
    for part in e.walk(predicate):
        for side, other in equalities(part):
            if over_column(side, key) and bare_column(side) is None and fixed(subject.catalog, other):
                return f"compare {_written(side) or f'an expression over {quote(key)}'}", side
    for part in e.walk(predicate):
        if isinstance(part, e.Distinct) and key in e.columns(part):
            return f"compare {quote(key)} by IS NOT DISTINCT FROM", None
    if isinstance(predicate, (e.Case, e.Coalesce)) and key in e.columns(predicate):
        inside = (pair for part in e.walk(predicate) for pair in equalities(part))
        if any((column := bare_column(side)) is not None and column.name == key for side, _ in inside):
            word = "CASE" if isinstance(predicate, e.Case) else "COALESCE"
            return f"compare {quote(key)} inside {word}", None
    return None


def _written(expression: Expression) -> str | None:
    """SQL of a column under casts and functions of constants."""
    match expression:
        case e.Column():
            return quote(expression.name)
        case e.Constant(value=str(value)):
            return f"{literal(value)}::{expression.type}"
        case e.Cast():
            inner = _written(expression.argument)
            return None if inner is None else f"{inner}::{expression.type}"
        case e.Call(volatility="immutable") if expression.name.isidentifier():
            inside = [_written(argument) for argument in expression.arguments]
            name = f"{quote(expression.schema)}.{quote(expression.name)}"
            return None if None in inside else f"{name}({', '.join(one or '' for one in inside)})"
    return None


def _fix(subject: Subject, one: Filter, wrapped: Expression | None) -> str:
    """An index on the expression, which changes nobody's rows; the plain comparison where the key alone decides."""
    if wrapped is not None:
        written = _written(wrapped)
        if written is None:
            return remark(f"{one.name}: compare {quote(one.key or '')} itself and convert the other side")
        return f"CREATE INDEX ON {one.relation.qualified} (({written}));"
    settings = {part.name for part in e.walk(one.predicate) if isinstance(part, e.Setting)}
    column = one.relation.column(one.key or "")
    alone = not any(
        isinstance(part, (e.Subquery, e.Or)) or (isinstance(part, e.Call) and part.user)
        for part in e.walk(one.predicate)
    )
    if column is None or len(settings) != 1 or not alone or e.columns(one.predicate) != {column.name}:
        return remark(f"{one.name}: add {quote(one.key or '')} = the tenant's value as a condition of its own")
    value = f"NULLIF(current_setting({literal(settings.pop())}, true), '')::{column.type}"
    return f"ALTER POLICY {quote(one.policy.name)} ON {one.relation.qualified} USING ({quote(column.name)} = {value});"
