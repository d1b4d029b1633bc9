"""Reads the catalog in one read-only transaction; the number of queries does not grow."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, LiteralString

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from rlsaudit.catalog import queries
from rlsaudit.catalog.cluster import (
    ForeignServer,
    LargeObjects,
    Membership,
    Parameter,
    Publication,
    Role,
    Schema,
    Server,
    Setting,
    UserMapping,
)
from rlsaudit.catalog.grants import DefaultPrivilege, Grant, SystemGrant
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.relations import (
    Column,
    Constraint,
    Dependency,
    ExtendedStatistics,
    Index,
    Policy,
    Relation,
    Rule,
    Trigger,
)
from rlsaudit.catalog.routines import Collation, EventTrigger, Extension, Function, Symbol
from rlsaudit.collecting import without_collecting
from rlsaudit.errors import NotTrustworthy, UsageError

OLDEST = 150000
"""``server_version_num`` of the oldest supported server."""

REDACTED = "(not recorded)"
"""Stands for the value of a setting whose name says that it is a secret."""

Row = tuple[Any, ...]
Cursor = psycopg.Cursor[Row]

_SECRET = re.compile(r"passw|secret|token|credential|api_?key|private_?key|signing_?key|encryption_?key", re.IGNORECASE)
_ENABLED = {"O": "origin", "D": "disabled", "R": "replica", "A": "always"}
_ACTION = {"a": "NO ACTION", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}
_EVENTS = ((4, "INSERT"), (16, "UPDATE"), (8, "DELETE"), (32, "TRUNCATE"))

# Fields of pg_node_tree that hold OIDs of functions, operators and types; a list is written (o 96 98).
_NODE_OIDS = re.compile(
    r":(?:(funcid|opfuncid|aggfnoid|winfnoid|hashfuncid|negfuncid|aggtransfn)"
    r"|(opno|opnos|eqop|sortop)"
    r"|(consttype|vartype|resulttype|funcresulttype|opresulttype|paramtype|array_typeid|element_typeid"
    r"|casetype|coalescetype|minmaxtype|aggtype|aggargtypes|wintype|row_typeid|typeId|refrestype"
    r"|refcontainertype|refelemtype|type|coltypes|funccoltypes)) (?:(\d+)|\(o ([\d ]+)\))"
)

# What trees of tables that look alike differ in.
_OWN_NAMES = re.compile(r":(?:relid \d+|aliasname (?:\\.|[^\s\\])+)")


def load_catalog(connection: psycopg.Connection[Any]) -> Catalog:
    """The whole catalog, from one snapshot; nothing is written and the connection is left as it was.

    A connection that is idle gets a REPEATABLE READ READ ONLY transaction, rolled back at the end; one that
    is inside a transaction gets a savepoint, so that uncommitted objects are seen.

    Raises UsageError when the server is older than 15, NotTrustworthy when the catalog cannot be read.
    """
    try:
        with (
            without_collecting(),
            _transaction(connection),
            connection.cursor(row_factory=tuple_row) as cursor,
        ):
            return _load(cursor)
    except psycopg.Error as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise NotTrustworthy(
            f"the catalog could not be read: {reason}; check the connection and that no migration holds"
            " locks, then run again"
        ) from error


@contextmanager
def _transaction(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """One read-only snapshot, with settings that make the server print names in full; always rolled back."""
    if connection.info.transaction_status == TransactionStatus.INTRANS:
        with connection.transaction(force_rollback=True):
            connection.execute(queries.SETTINGS)
            yield
        return
    autocommit = connection.autocommit
    connection.autocommit = True  # or psycopg would begin a transaction of its own
    try:
        connection.execute(f"{queries.BEGIN};{queries.SETTINGS}")
        yield
    finally:
        if not connection.closed:
            connection.execute("ROLLBACK")
            connection.autocommit = autocommit


def _load(cursor: Cursor) -> Catalog:
    server = _server(cursor)
    dialect = queries.dialect(server.version_num)
    extensions = _rows(cursor, queries.EXTENSIONS)
    relations = _relations(cursor, {oid: name for name, _, _, _, members, _ in extensions for oid in members})
    functions = _functions(cursor, {oid: name for name, _, _, _, _, members in extensions for oid in members})
    policies = _policies(cursor)
    constraints = tuple(_constraint(row) for row in _rows(cursor, dialect.constraints))
    indexes = tuple(_index(row) for row in _rows(cursor, queries.INDEXES))
    publications = tuple(_publication(row, relations) for row in _rows(cursor, queries.PUBLICATIONS))
    trees = _trees(relations, constraints, indexes, policies, functions)
    trees |= {tree for one in publications for tree in one.filter_trees}
    operators, called, types = _symbols(cursor, trees)
    return Catalog(
        server=server,
        roles=tuple(Role(*row) for row in _rows(cursor, queries.ROLES)),
        memberships=tuple(Membership(*row) for row in _rows(cursor, dialect.memberships)),
        schemas=tuple(Schema(*row) for row in _rows(cursor, queries.SCHEMAS)),
        relations=relations,
        constraints=constraints,
        indexes=indexes,
        policies=policies,
        functions=functions,
        triggers=tuple(_trigger(row) for row in _rows(cursor, queries.TRIGGERS)),
        event_triggers=tuple(_event_trigger(row) for row in _rows(cursor, queries.EVENT_TRIGGERS)),
        rules=tuple(Rule(*row) for row in _rows(cursor, queries.RULES)),
        grants=tuple(Grant(*row) for row in _rows(cursor, queries.GRANTS)),
        default_privileges=tuple(DefaultPrivilege(*row) for row in _rows(cursor, queries.DEFAULT_PRIVILEGES)),
        publications=publications,
        collations=tuple(Collation(*row) for row in _rows(cursor, queries.COLLATIONS)),
        extensions=tuple(Extension(*row[:4]) for row in extensions),
        extended_statistics=tuple(ExtendedStatistics(*row) for row in _rows(cursor, queries.EXTENDED_STATISTICS)),
        settings=tuple(_setting(row) for row in _rows(cursor, queries.SETTINGS_OF_ROLES)),
        foreign_servers=tuple(_foreign_server(row) for row in _rows(cursor, queries.FOREIGN_SERVERS)),
        user_mappings=tuple(UserMapping(*row) for row in _rows(cursor, queries.USER_MAPPINGS)),
        system_grants=tuple(SystemGrant(*row) for row in _rows(cursor, queries.SYSTEM_GRANTS)),
        large_objects=tuple(LargeObjects(*row) for row in _rows(cursor, queries.LARGE_OBJECTS)),
        parameters=tuple(Parameter(*row) for row in _rows(cursor, queries.PARAMETERS)),
        dependencies=tuple(Dependency(*row) for row in _rows(cursor, queries.DEPENDENCIES)),
        symbol_functions=called,
        symbol_operators=operators,
        symbol_types=types,
        population=_rows(cursor, queries.POPULATION)[0][0],
    )


def _rows(cursor: Cursor, query: LiteralString, parameters: Sequence[object] | None = None) -> list[Row]:
    return cursor.execute(query, parameters).fetchall()


def _server(cursor: Cursor) -> Server:
    # The version first: an older server may not know what the next query asks for.
    version_num = cursor.connection.info.server_version
    if version_num < OLDEST:
        raise UsageError(f"the server is PostgreSQL {version_num // 10000}; rlsaudit reads PostgreSQL 15 and later")
    *fields, may_read_control = _rows(cursor, queries.SERVER)[0]
    server = Server(*fields)
    if may_read_control:
        server = replace(server, system_identifier=_rows(cursor, queries.SYSTEM_IDENTIFIER)[0][0])
    return server


def _relations(cursor: Cursor, extensions: dict[int, str]) -> tuple[Relation, ...]:
    rows = _rows(cursor, queries.RELATIONS)
    columns = _columns(cursor, {row[0] for row in rows if row[3] == "sequence"})

    def relation(row: Row) -> Relation:
        oid, parents, options = row[0], row[7], row[12]
        lists = (_tuple(columns.get(oid)), _tuple(parents))
        middle = (*row[8:12], _tuple(options), *row[13:15])
        return Relation(*(*row[:7], *lists, *middle, extensions.get(oid), *row[15:]))

    return tuple(relation(row) for row in rows)


def _columns(cursor: Cursor, sequences: set[int]) -> dict[int, list[Column]]:
    """Columns by relation, in order."""
    types = {
        oid: (base, category, _tuple(labels), _tuple(checks))
        for oid, base, category, labels, checks in _rows(cursor, queries.COLUMN_TYPES)
    }
    drawn: dict[object, int] = {}
    for by_default, source, target, number in _rows(cursor, queries.COLUMN_SEQUENCES):
        if by_default and target in sequences:
            drawn.setdefault(source, target)
        elif not by_default and source in sequences:
            drawn[target, number] = source
    columns: dict[int, list[Column]] = defaultdict(list)
    alike: dict[Row, Column] = {}
    for row in _rows(cursor, queries.COLUMNS):
        relation, number, default = row[0], row[1], row[-1]
        sequence = drawn.get((relation, number)) or drawn.get(default, 0)
        fields = (*row[1:-1], sequence)
        column = alike.get(fields)
        if column is None:
            _, _, name, printed, type_oid, not_null, text, identity, generated, tree, _ = row
            base, category, labels, checks = types[type_oid]
            column = alike[fields] = Column(
                number, name, printed, type_oid, base, category, not_null, text, identity, generated, labels, checks,
                tree, sequence,
            )  # fmt: skip
        columns[relation].append(column)
    return columns


def _constraint(row: Row) -> Constraint:
    oid, name, relation, kind, columns, definition, expression, referenced, theirs, on_update, on_delete, *rest = row
    return Constraint(
        oid, name, relation, kind, _tuple(columns), definition, expression, referenced, _tuple(theirs),
        _ACTION.get(on_update, ""), _ACTION.get(on_delete, ""), *rest,
    )  # fmt: skip


def _index(row: Row) -> Index:
    oid, name, relation, keys, key_columns, *rest = row
    return Index(oid, name, relation, _numbers(keys)[:key_columns], *rest)


def _policies(cursor: Cursor) -> tuple[Policy, ...]:
    return tuple(Policy(*(*row[:5], _tuple(row[5]), *row[6:])) for row in _rows(cursor, queries.POLICIES))


def _functions(cursor: Cursor, extensions: dict[int, str]) -> tuple[Function, ...]:
    def function(row: Row) -> Function:
        names, modes, types, settings, oid, result = row[10], row[11], row[12], row[15], row[0], row[18]
        arguments = (_argument_names(names, modes, len(types)), _tuple(types))
        fields = (
            *row[:10],
            *arguments,
            *row[13:15],
            _tuple(settings),
            *row[16:18],
            extensions.get(oid),
            result,
        )
        return Function(*fields)

    return tuple(function(row) for row in _rows(cursor, queries.FUNCTIONS))


def _tuple(array: list[Any] | None) -> tuple[Any, ...]:
    """An array of the server, where NULL means empty."""
    return tuple(array) if array else ()


def _argument_names(names: list[str] | None, modes: list[str] | None, count: int) -> tuple[str, ...]:
    """Names of the input arguments, one for each, empty for one without a name."""
    if names is None:
        return ("",) * count
    return tuple(name for name, mode in zip(names, modes or "i" * len(names), strict=True) if mode in "ibv")


def _trigger(row: Row) -> Trigger:
    oid, name, relation, function, kind, enabled, columns, definition = row
    return Trigger(
        oid,
        name,
        relation,
        function,
        "INSTEAD OF" if kind & 64 else "BEFORE" if kind & 2 else "AFTER",
        tuple(event for bit, event in _EVENTS if kind & bit),
        bool(kind & 1),
        _ENABLED[enabled],  # type: ignore[arg-type]
        _numbers(columns),
        definition,
    )


def _event_trigger(row: Row) -> EventTrigger:
    name, event, tags, function, enabled = row
    return EventTrigger(name, event, _tuple(tags), function, _ENABLED[enabled])  # type: ignore[arg-type]


def _numbers(vector: str) -> tuple[int, ...]:
    """An int2vector as the server prints it."""
    return tuple(int(number) for number in vector.split())


def _publication(row: Row, relations: Iterable[Relation]) -> Publication:
    name, all_tables, named, filtered, trees, schemas = row
    chosen = set(named)
    for relation in relations:
        publishable = relation.kind in ("table", "partitioned table") and relation.persistence == "permanent"
        if publishable and (all_tables or relation.schema in schemas):
            chosen.add(relation.oid)
    return Publication(name, all_tables, tuple(sorted(chosen)), tuple(filtered), _tuple(trees))


def _foreign_server(row: Row) -> ForeignServer:
    named = (option.partition("=") for option in _tuple(row[4]))
    kept = tuple(f"{name}={REDACTED if _SECRET.search(name) else value}" for name, _, value in named)
    return ForeignServer(*(*row[:4], kept))


def _setting(row: Row) -> Setting:
    role, database, name, value = row
    return Setting(role, database, name, REDACTED if _SECRET.search(name) else value)


Symbols = dict[int, Symbol]


def _trees(
    relations: Iterable[Relation],
    constraints: Iterable[Constraint],
    indexes: Iterable[Index],
    policies: Iterable[Policy],
    functions: Iterable[Function],
) -> set[str]:
    """Every analysed tree of the catalog."""
    found = {tree for policy in policies for tree in (policy.using_tree, policy.check_tree)}
    found |= {function.body_tree for function in functions}
    found |= {constraint.tree for constraint in constraints}
    found |= {tree for index in indexes for tree in (index.expressions_tree, index.predicate_tree)}
    for relation in relations:
        found.add(relation.query_tree)
        found.update(column.default_tree for column in relation.columns)
    return {tree for tree in found if tree}


def _symbols(cursor: Cursor, trees: set[str]) -> tuple[Symbols, Symbols, Symbols]:
    """Operators, functions and types that the trees name."""
    function_oids, operator_oids, type_oids = _mentioned(trees)
    operators = {
        oid: Symbol(oid, schema, name, function, equality, volatility)
        for oid, schema, name, function, equality, volatility in _rows(
            cursor, queries.SYMBOL_OPERATORS, [sorted(operator_oids)]
        )
    }
    function_oids |= {operator.function for operator in operators.values()}
    called = {
        oid: Symbol(oid, schema, name, volatility=volatility, strict=strict, cost=cost)
        for oid, schema, name, volatility, strict, cost in _rows(
            cursor, queries.SYMBOL_FUNCTIONS, [sorted(function_oids)]
        )
    }
    types = {row[0]: Symbol(*row) for row in _rows(cursor, queries.SYMBOL_TYPES, [sorted(type_oids)])}
    return operators, called, types


def _mentioned(trees: Iterable[str]) -> tuple[set[int], set[int], set[int]]:
    """OIDs of the functions, operators and types in some expression trees."""
    found: tuple[set[int], set[int], set[int]] = (set(), set(), set())
    outlines = {_OWN_NAMES.sub(":", tree) for tree in trees}  # for thousands of alike tables a handful
    matches = {match for outline in outlines for match in _NODE_OIDS.findall(outline)}
    for function, operator, _, single, several in matches:
        oids = found[0] if function else found[1] if operator else found[2]
        oids.update(int(oid) for oid in (single or several).split())
    for oids in found:
        oids.discard(0)
    return found
