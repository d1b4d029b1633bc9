"""What load_catalog reads, held against a schema that has one of everything."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from rlsaudit.catalog import load, queries
from rlsaudit.catalog.expression import Call, Cast, Compare, Setting
from rlsaudit.catalog.load import load_catalog
from rlsaudit.catalog.model import Catalog
from rlsaudit.catalog.policies import check_predicate, default_expression, index_expressions, view_branches
from rlsaudit.catalog.relations import Relation
from rlsaudit.catalog.snapshot import save
from rlsaudit.errors import NotTrustworthy, UsageError
from rlsaudit.source.server import ScratchServer


@pytest.fixture(scope="module")
def catalog(nasty: psycopg.Connection[Any]) -> Catalog:
    return load_catalog(nasty)


def relation(catalog: Catalog, name: str) -> Relation:
    return next(r for r in catalog.relations if r.name == name and r.schema == "zoo")


def test_every_kind_is_there_and_counted_twice(catalog: Catalog) -> None:
    kinds = {r.name: r.kind for r in catalog.relations if r.schema == "zoo"}
    assert kinds["parent"] == "table"
    assert kinds["measured"] == kinds["measured_1"] == "partitioned table"
    assert kinds["plain_view"] == "view"
    assert kinds["stored"] == "materialized view"
    assert kinds["far"] == "foreign table"
    assert kinds["counter"] == kinds["parent_id_seq"] == "sequence"
    assert "hidden" not in {r.name for r in catalog.relations}
    assert catalog.population == len(catalog.relations)


def test_hostile_names_arrive_unchanged(catalog: Catalog) -> None:
    hostile = next(r for r in catalog.relations if r.name == 'Tab"le </script> ; DROP')
    assert hostile.schema == 'Ünï "q" </script>'
    assert [c.name for c in hostile.columns] == ['Col"umn </script> é', "%s {0} \\", "select"]
    assert hostile.qualified == '"Ünï ""q"" </script>"."Tab""le </script> ; DROP"'
    assert next(r for r in catalog.relations if r.schema == "select").qualified == '"select"."table"'
    assert catalog.role_named('Zoo "App" </script>') is not None


def test_columns(catalog: Catalog) -> None:
    parent = relation(catalog, "parent")
    columns = {c.name: c for c in parent.columns}
    assert "gone" not in columns
    assert [c.number for c in parent.columns] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13]
    assert columns["id"].identity == "always"
    assert columns["id"].not_null
    assert columns["serial_number"].identity == "by default"
    assert (columns["code"].type, columns["code"].base_type) == ("character varying(20)", "character varying")
    assert columns["code"].default == "'x''y'::character varying"
    assert (columns["amount"].type, columns["amount"].base_type) == ("numeric(10,2)", "numeric")
    assert (columns["doubled"].generated, columns["doubled"].default) == ("stored", "(amount * (2)::numeric)")
    assert (columns["tags"].type, columns["tags"].category) == ("text[]", "A")
    assert columns["pair"].type == "zoo.pair"


def test_domains_and_enums_are_followed_to_the_bottom(catalog: Catalog) -> None:
    columns = {c.name: c for c in relation(catalog, "parent").columns}
    level, state = columns["level"], columns["state"]
    assert (level.type, level.base_type, level.category) == ("zoo.positive", "integer", "N")
    assert level.domain_checks == ("CHECK ((VALUE < 100))", "CHECK (((VALUE)::integer > 0))") or (
        level.domain_checks == ("CHECK ((VALUE < 100))", "CHECK ((VALUE > 0))")
    )
    labels = ("first", "new", "it's", "Ünï")
    assert (state.type, state.base_type, state.category, state.enum_labels) == (
        "zoo.state",
        "zoo.status",
        "E",
        labels,
    )
    assert columns["kind"].enum_labels == labels
    assert columns["code"].enum_labels == columns["code"].domain_checks == ()


def test_a_table_of_1600_columns(catalog: Catalog) -> None:
    assert [c.name for c in relation(catalog, "wide").columns] == [f"c{n}" for n in range(1, 1601)]


def test_partitions_and_children(catalog: Catalog) -> None:
    root, branch, leaf = (relation(catalog, name) for name in ("measured", "measured_1", "measured_1_old"))
    assert (root.partition_key, root.parents, root.is_partition) == ("LIST (tenant)", (), False)
    assert (branch.partition_key, branch.partition_bound) == ("RANGE (at)", "FOR VALUES IN (1, 2)")
    assert branch.parents == (root.oid,)
    assert leaf.partition_bound == "FOR VALUES FROM (MINVALUE) TO ('2020-01-01')"
    assert {r.name for r in catalog.children_of(root.oid)} == {"measured_1", "measured_rest"}
    heir = relation(catalog, "heir")
    assert (heir.parents, heir.is_partition) == ((relation(catalog, "child").oid,), False)


def test_relation_properties(catalog: Catalog) -> None:
    parent, child, safe = (relation(catalog, name) for name in ("parent", "child", "safe_view"))
    assert (parent.rls_enabled, parent.rls_forced, child.rls_enabled, child.rls_forced) == (
        True,
        True,
        True,
        False,
    )
    assert safe.security_invoker
    assert safe.security_barrier
    assert not relation(catalog, "plain_view").security_invoker
    assert "zoo.plain_view" in (safe.definition or "")
    unlogged = relation(catalog, "unlogged")
    assert (unlogged.persistence, unlogged.options) == ("unlogged", ("fillfactor=70",))
    assert catalog.role_name(unlogged.owner) == "zoo_owner"


def test_constraints(catalog: Catalog) -> None:
    parent, child = relation(catalog, "parent"), relation(catalog, "child")
    by_name = {k.name: k for k in catalog.constraints_of(parent.oid) + catalog.constraints_of(child.oid)}
    assert by_name["parent_pkey"].kind == "primary key"
    assert (by_name['odd "name"'].kind, by_name['odd "name"'].columns) == ("unique", (2, 1))
    assert by_name["limited"].expression == "((amount > (0)::numeric) AND ((code)::text <> ''::text))"
    assert by_name["parent_period_excl"].kind == "exclusion"
    key = by_name["child_customerId_parent_fkey"]
    assert (key.columns, key.referenced, key.referenced_columns) == ((2, 3), parent.oid, (2, 1))
    assert (key.on_update, key.on_delete, key.deferrable) == ("SET NULL", "CASCADE", True)
    assert (by_name["later"].validated, by_name["later"].enforced, by_name["later"].on_delete) == (
        False,
        True,
        "",
    )
    assert by_name["fourth"].kind == "trigger"
    if catalog.server.major >= 18:
        assert not by_name["loose"].enforced
        missing = next(k for k in by_name.values() if k.kind == "not null" and k.columns == (2,))
        assert missing.definition == 'NOT NULL "customerId"'


def test_a_foreign_key_to_a_partitioned_table_is_one_key(catalog: Catalog) -> None:
    keys = [k for k in catalog.constraints_of(relation(catalog, "refers").oid) if k.kind == "foreign key"]
    assert [k.referenced for k in keys] == [relation(catalog, "measured").oid]
    kinds = {k.kind for k in catalog.constraints_of(relation(catalog, "measured_rest").oid)}
    assert "primary key" in kinds  # a partition has its own copy


def test_indexes(catalog: Catalog) -> None:
    indexes = {i.name: i for i in catalog.indexes_of(relation(catalog, "parent").oid)}
    partial = indexes["partial"]
    assert (partial.columns, partial.unique, partial.primary, partial.nulls_not_distinct) == (
        (0, 2),
        True,
        False,
        True,
    )
    assert partial.predicate == "(amount > (1)::numeric)"
    assert "INCLUDE (amount)" in partial.definition
    assert indexes["parent_pkey"].primary
    assert indexes["parent_pkey"].valid


def test_policies(catalog: Catalog) -> None:
    parent, child = relation(catalog, "parent"), relation(catalog, "child")
    policies = {p.name: p for p in catalog.policies_of(parent.oid) + catalog.policies_of(child.oid)}
    everything, restrict = policies["everything"], policies['re"strict']
    assert (everything.command, everything.permissive, everything.roles, everything.check) == (
        "ALL",
        True,
        (0,),
        None,
    )
    assert everything.using == '("customerId" = zoo.tenant())'
    assert (everything.using_tree or "").startswith("{OPEXPR")
    assert (restrict.command, restrict.permissive) == ("UPDATE", False)
    assert {catalog.role_name(role) for role in restrict.roles} == {"zoo_app", "zoo_owner"}
    assert {p.name: p.command for p in catalog.policies_of(child.oid)} == {
        "adding": "INSERT", "recursive": "SELECT", "removing": "DELETE",
    }  # fmt: skip


def test_every_oid_in_a_tree_is_resolved(catalog: Catalog) -> None:
    tenant = next(f for f in catalog.functions if f.name == "tenant")
    assert catalog.symbol_functions[tenant.oid].schema == "zoo"
    named = {(s.name, s.btree_equality) for s in catalog.symbol_operators.values()}
    assert {("=", True), (">=", False), ("@>", False), ("~", False)} <= named
    for operator in catalog.symbol_operators.values():
        assert operator.function in catalog.symbol_functions
    aggregates = {s.name for s in catalog.symbol_functions.values()}
    assert {"count", "max", "tenant"} <= aggregates
    assert {"text", "bool", "positive", "state", "_text"} <= {s.name for s in catalog.symbol_types.values()}


def test_functions(catalog: Catalog) -> None:
    functions = {f.name: f for f in catalog.functions if f.schema == "zoo"}
    many = functions["many"]
    assert (many.argument_names, many.argument_types) == (("a", "c"), ("integer", "text[]"))
    assert (many.security_definer, many.leakproof, many.strict, many.volatility) == (
        True,
        True,
        True,
        "immutable",
    )
    assert many.settings == ("search_path=pg_catalog, pg_temp", "app.x=y")
    assert many.signature == "zoo.many(integer, text[])"
    unnamed = functions["unnamed"]
    assert (unnamed.argument_names, unnamed.argument_types) == (("", ""), ("integer", "zoo.status"))
    assert (unnamed.returns, unnamed.returns_set) == ("zoo.parent", True)
    assert (functions["proc"].kind, functions["total"].kind) == ("procedure", "aggregate")
    atomic = functions["atomic"]
    assert "FROM zoo.child" in atomic.source
    assert atomic.body_tree is not None
    assert functions["tenant"].body_tree is None
    assert functions["tenant"].source == " SELECT current_setting('app.tenant_id', true) "


def test_triggers(catalog: Catalog) -> None:
    triggers = {t.name: t for t in catalog.triggers if not catalog.relation(t.relation).is_partition}
    first, second, third, fourth = (triggers[name] for name in ("first", "second", "third", "fourth"))
    assert (first.timing, first.events, first.row_level) == ("BEFORE", ("INSERT", "UPDATE"), True)
    assert (first.columns, first.enabled) == ((3, 4), "disabled")
    assert (second.timing, second.events, second.row_level) == ("AFTER", ("DELETE", "TRUNCATE"), False)
    assert (second.columns, second.enabled) == ((), "always")
    assert (third.timing, third.events) == ("INSTEAD OF", ("INSERT", "UPDATE", "DELETE"))
    assert (fourth.timing, fourth.enabled) == ("AFTER", "replica")
    # A trigger of a partitioned table exists on each partition; foreign keys' own triggers are not listed.
    assert len([t for t in catalog.triggers if t.name == "spread"]) == 4
    assert {t.name for t in catalog.triggers} == {"first", "second", "third", "fourth", "spread"}
    for trigger in catalog.triggers:
        text = trigger.definition.partition(" ON ")[0]
        assert trigger.timing in text
        assert all(event in text for event in trigger.events)


def test_rules(catalog: Catalog) -> None:
    rules = {r.name: (r.event, r.instead, catalog.relation(r.relation).name) for r in catalog.rules}
    assert rules == {"also": ("INSERT", False, "child"), "instead": ("UPDATE", True, "plain_view")}


def grants(catalog: Catalog, target: str) -> set[tuple[str, str, bool]]:
    return {(catalog.role_name(g.grantee), g.privilege, g.grantable) for g in catalog.grants if g.target == target}


def test_grants_at_every_level(catalog: Catalog) -> None:
    parent = relation(catalog, "parent")
    on_parent = {(catalog.role_name(g.grantee), g.privilege, g.grantable)
                 for g in catalog.grants if g.target == "relation" and g.object == parent.oid}  # fmt: skip
    assert {
        ("zoo_app", "SELECT", True),
        ("zoo_app", "INSERT", True),
        ("PUBLIC", "TRUNCATE", False),
    } <= on_parent
    assert ("postgres", "DELETE", False) in on_parent
    columns = {(g.object, g.column, g.privilege) for g in catalog.grants if g.target == "column"}
    assert columns == {(parent.oid, 2, "SELECT"), (parent.oid, 3, "UPDATE"), (parent.oid, 4, "UPDATE")}
    assert ("zoo_app", "USAGE", True) in grants(catalog, "schema")
    assert ("zoo_app", "EXECUTE", False) in grants(catalog, "function")
    assert {("zoo_app", "CREATE", False), ("PUBLIC", "CONNECT", False)} <= grants(catalog, "database")
    assert ("zoo_app", "USAGE", False) in grants(catalog, "type")
    assert grants(catalog, "large object") == {("zoo_app", "SELECT", False)}
    assert [(g.parameter, g.privilege) for g in catalog.grants if g.target == "parameter" and g.grantee != 10] == [
        ("app.tenant_id", "SET")
    ]


def test_an_owner_that_revoked_everything_has_no_grant(catalog: Catalog) -> None:
    unlogged = relation(catalog, "unlogged")
    assert not [g for g in catalog.grants if g.target == "relation" and g.object == unlogged.oid]


def test_a_function_without_an_acl_is_open_to_public(catalog: Catalog) -> None:
    oid = {f.name: f.oid for f in catalog.functions}
    public = {g.object for g in catalog.grants if g.target == "function" and g.grantee == 0}
    assert oid["tenant"] in public
    assert oid["atomic"] not in public


def test_default_privileges(catalog: Catalog) -> None:
    schemas = {s.oid: s.name for s in catalog.schemas} | {0: ""}
    found = {(schemas[d.schema], d.object_type, catalog.role_name(d.grantee), d.privilege)
             for d in catalog.default_privileges}  # fmt: skip
    assert ("zoo", "relation", "zoo_app", "SELECT") in found
    assert ("", "function", "zoo_owner", "EXECUTE") in found
    assert ("", "function", "PUBLIC", "EXECUTE") not in found


def test_roles_and_memberships(catalog: Catalog) -> None:
    bypass = catalog.role_named("zoo_bypass")
    assert bypass is not None
    assert (bypass.bypassrls, bypass.createrole, bypass.createdb, bypass.replication) == (True,) * 4
    assert (bypass.login, bypass.superuser) == (False, False)
    names = {(catalog.role_name(m.member), catalog.role_name(m.role)): m for m in catalog.memberships}
    assert names["zoo_app", "zoo_owner"].admin
    inherited = names['Zoo "App" </script>', "zoo_app"]
    assert (inherited.inherit, inherited.set, inherited.admin) == (False, True, False)
    assert catalog.role_named("pg_read_all_data") is not None


def test_publications(catalog: Catalog) -> None:
    found = {p.name: p for p in catalog.publications}
    tables = {r.oid for r in catalog.relations if r.kind in ("table", "partitioned table")}
    unlogged = {relation(catalog, "unlogged").oid}
    assert set(found["every"].relations) == tables - unlogged
    assert set(found["of_schema"].relations) == {
        r.oid for r in catalog.relations if r.schema == "zoo" and r.oid in tables - unlogged
    }
    child, heir, refers = (relation(catalog, name).oid for name in ("child", "heir", "refers"))
    assert found["filtered"].relations == (child, heir, refers)
    assert found["filtered"].filtered == (child, heir)
    assert (found["every"].all_tables, found["filtered"].all_tables) == (True, False)


def test_settings_without_secrets_and_without_other_databases(catalog: Catalog) -> None:
    found = {(catalog.role_name(s.role) if s.role else "", bool(s.database), s.name): s.value for s in catalog.settings}
    assert found["zoo_app", False, "app.mode"] == "a=b"
    assert found["zoo_app", True, "app.tenant_id"] == "7"
    assert found["", True, "work_mem"] == "8MB"
    assert found["", True, "app.jwt_secret"] == load.REDACTED
    assert "app.elsewhere" not in {s.name for s in catalog.settings}


def test_dependencies(catalog: Catalog) -> None:
    functions = {f.name: f.oid for f in catalog.functions}
    parent, child, view = (relation(catalog, name).oid for name in ("parent", "child", "plain_view"))
    assert catalog.mentions("relation", view, "relation") == (parent,)
    assert catalog.mentions("relation", view, "function") == (functions["tenant"],)
    assert catalog.mentions("relation", relation(catalog, "safe_view").oid, "relation") == (view,)
    assert catalog.mentions("relation", child, "relation") == (relation(catalog, "counter").oid,)
    policies = {p.name: p.oid for p in catalog.policies}
    assert catalog.mentions("policy", policies["everything"], "function") == (functions["tenant"],)
    assert catalog.mentions("policy", policies['re"strict'], "relation") == (child,)
    assert catalog.mentions("policy", policies["everything"], "relation") == ()
    assert catalog.mentions("function", functions["atomic"], "relation") == (child,)
    assert catalog.mentions("function", functions["atomic"], "function") == (functions["tenant"],)
    triggers = {t.name: t.oid for t in catalog.triggers}
    assert catalog.mentions("trigger", triggers["first"], "function") == (functions["tenant"],)
    rules = {r.name: r.oid for r in catalog.rules}
    assert catalog.mentions("rule", rules["also"], "relation") == (relation(catalog, "unlogged").oid,)


def test_virtual_columns(catalog: Catalog) -> None:
    if catalog.server.major < 18:
        pytest.skip("virtual generated columns came with PostgreSQL 18")
    assert relation(catalog, "virtual_column").columns[1].generated == "virtual"


def test_extensions_own_their_objects(database: Any) -> None:
    connection = database()
    available = {name for (name,) in connection.execute("SELECT name FROM pg_available_extensions")}
    if "pg_buffercache" not in available:
        pytest.skip("the server has no extension with a view")
    connection.execute("CREATE SCHEMA ext; CREATE EXTENSION pg_buffercache SCHEMA ext")
    catalog = load_catalog(connection)
    assert {(e.name, e.schema) for e in catalog.extensions} == {
        ("plpgsql", "pg_catalog"),
        ("pg_buffercache", "ext"),
    }
    assert {r.extension for r in catalog.relations} == {"pg_buffercache"}
    assert {f.extension for f in catalog.functions} == {"pg_buffercache"}


def test_an_empty_database(database: Any) -> None:
    catalog = load_catalog(database())
    assert catalog.relations == catalog.policies == catalog.functions == ()
    assert [s.name for s in catalog.schemas] == ["public"]
    assert catalog.population == 0
    assert catalog.server.session_superuser
    assert catalog.server.clock.endswith("+00:00")
    assert int(catalog.server.system_identifier) > 0


def test_an_ordinary_role_reads_the_same(
    nasty: psycopg.Connection[Any], server: ScratchServer, catalog: Catalog
) -> None:
    with psycopg.connect(server.conninfo(dbname=nasty.info.dbname, user="zoo_plain")) as connection:
        seen = load_catalog(connection)
    assert seen.server.session_role == "zoo_plain"
    assert not seen.server.session_superuser
    assert set(seen.parameters) < set(catalog.parameters)  # some are for pg_read_all_settings only
    assert [mapping.visible for mapping in seen.user_mappings] == [False]
    hidden = {name: getattr(catalog, name) for name in ("server", "parameters", "user_mappings")}
    assert replace(seen, **hidden) == catalog


def test_control_data_may_be_denied(database: Any, server: ScratchServer) -> None:
    connection = database("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    connection.execute("DO $$ BEGIN CREATE ROLE modest LOGIN; EXCEPTION WHEN duplicate_object THEN END $$")
    with psycopg.connect(server.conninfo(dbname=connection.info.dbname, user="modest")) as modest:
        assert load_catalog(modest).server.system_identifier == ""


def test_a_hostile_search_path_changes_nothing(database: Any, server: ScratchServer) -> None:
    connection = database(
        """CREATE SCHEMA evil;
        CREATE TABLE public.t (a int);
        CREATE POLICY p ON t USING (a = 1);
        CREATE TABLE evil.pg_class (oid oid);
        CREATE FUNCTION evil.format_type(oid, int) RETURNS text LANGUAGE sql AS $$ SELECT 'evil' $$;
        CREATE FUNCTION evil.yes(name, name) RETURNS bool LANGUAGE sql AS $$ SELECT false $$;
        CREATE OPERATOR evil.= (LEFTARG = name, RIGHTARG = name, FUNCTION = evil.yes);"""
    )
    before = load_catalog(connection)
    connection.execute(
        "SET search_path = evil, pg_catalog, public; SET quote_all_identifiers = on; SET DateStyle = German"
    )
    after = load_catalog(connection)
    assert replace(after, server=before.server) == before
    assert [c.type for c in relation_named(after, "t").columns] == ["integer"]
    assert connection.execute("SHOW search_path").fetchone() == ("evil, pg_catalog, public",)


def relation_named(catalog: Catalog, name: str) -> Relation:
    return next(r for r in catalog.relations if r.name == name)


class CountingCursor(psycopg.Cursor[Any]):
    statements: ClassVar[list[object]] = []

    def execute(self, query: Any, *arguments: Any, **options: Any) -> Any:
        self.statements.append(query)
        return super().execute(query, *arguments, **options)


def statements(connection: psycopg.Connection[Any]) -> int:
    connection.cursor_factory = CountingCursor
    CountingCursor.statements.clear()
    load_catalog(connection)
    return len(CountingCursor.statements)


def test_the_number_of_queries_does_not_grow(database: Any) -> None:
    connection = database("CREATE TABLE t (a int PRIMARY KEY)")
    one = statements(connection)
    connection.execute(
        """DO $$ BEGIN FOR n IN 1..300 LOOP
            EXECUTE format('
                CREATE TABLE t%1$s (a int PRIMARY KEY, b text CHECK (b <> ''''), c int REFERENCES t);
                CREATE POLICY p ON t%1$s USING (a = 1);
                CREATE VIEW v%1$s AS SELECT * FROM t%1$s;', n);
        END LOOP; END $$"""
    )
    assert statements(connection) == one
    assert one < 40


@pytest.mark.parametrize("autocommit", [True, False])
def test_an_idle_connection_is_left_as_it_was(database: Any, autocommit: bool) -> None:
    connection = database("SET work_mem = '5MB'")
    connection.autocommit = autocommit
    load_catalog(connection)
    assert connection.autocommit is autocommit
    assert connection.info.transaction_status == TransactionStatus.IDLE
    assert connection.execute("SHOW work_mem").fetchone() == ("5MB",)


def test_inside_a_transaction_uncommitted_objects_are_seen(database: Any) -> None:
    connection = database()
    connection.autocommit = False
    connection.execute("SET LOCAL search_path = public; CREATE TABLE t (a int)")
    assert [r.name for r in load_catalog(connection).relations] == ["t"]
    assert connection.info.transaction_status == TransactionStatus.INTRANS
    assert connection.execute("SHOW search_path").fetchone() == ("public",)
    connection.rollback()
    assert load_catalog(connection).relations == ()


def test_the_transaction_is_read_only(database: Any) -> None:
    connection = database()
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), load._transaction(connection):
        connection.execute("CREATE TABLE public.t (a int)")
    assert connection.info.transaction_status == TransactionStatus.IDLE


def test_a_lock_held_by_a_migration_is_told_in_one_line(
    database: Any, server: ScratchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = database("CREATE TABLE t (a int); CREATE VIEW v AS SELECT a FROM t")
    monkeypatch.setattr(queries, "SETTINGS", queries.SETTINGS.replace("'10s'", "'50ms'"))
    with psycopg.connect(server.conninfo(dbname=connection.info.dbname)) as migration:
        migration.execute("LOCK TABLE v IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(NotTrustworthy, match="lock timeout") as caught:
            load_catalog(connection)
    assert "\n" not in str(caught.value)
    assert connection.info.transaction_status == TransactionStatus.IDLE
    assert len(load_catalog(connection).relations) == 2


def test_a_closed_connection_is_told_in_one_line(database: Any) -> None:
    connection = database()
    connection.close()
    with pytest.raises(NotTrustworthy, match="closed"):
        load_catalog(connection)


def test_an_old_server_is_refused(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "OLDEST", 990000)
    with pytest.raises(UsageError, match="reads PostgreSQL 15 and later"):
        load_catalog(database())


def test_a_database_without_an_encoding(database: Any, server: ScratchServer) -> None:
    admin = database()
    admin.execute("CREATE DATABASE raw_bytes ENCODING 'SQL_ASCII' TEMPLATE template0")
    with psycopg.connect(server.conninfo(dbname="raw_bytes"), autocommit=True) as connection:
        connection.execute("SET client_encoding = 'SQL_ASCII'")
        connection.execute(b'CREATE TABLE "\xc3\xa9" (a int)')
        assert [r.name for r in load_catalog(connection).relations] == ["é"]
        connection.execute(b'CREATE TABLE "\xff" (a int)')
        with pytest.raises(NotTrustworthy, match="invalid byte sequence"):
            load_catalog(connection)


def test_trees_of_views_checks_defaults_and_indexes_are_read(database: Any) -> None:
    connection = database(
        """CREATE TABLE t (tenant int DEFAULT current_setting('app.tenant')::int, host text CHECK (host <> ''));
        CREATE INDEX ON t (lower(host));
        CREATE VIEW v AS SELECT host FROM t WHERE tenant = current_setting('app.tenant')::int;"""
    )
    catalog = load_catalog(connection)
    table, view = (next(r for r in catalog.relations if r.name == name) for name in "tv")
    setting = Cast(Setting("app.tenant", False), "integer")
    assert default_expression(catalog, table, table.columns[0]) == setting
    assert default_expression(catalog, table, table.columns[1]) is None
    check = next(c for c in catalog.constraints_of(table.oid) if c.kind == "check")
    assert isinstance(found := check_predicate(catalog, check), Compare) and found.operator == "<>"
    (call,) = index_expressions(catalog, catalog.indexes_of(table.oid)[0])
    assert isinstance(call, Call) and call.name == "lower"
    (branch,) = view_branches(catalog, view) or ()
    place, condition = branch.reads[0].conditions[0]
    assert branch.reads[0].relation == table.oid and place == 0
    assert isinstance(condition, Compare) and condition.right == setting


def test_grants_on_system_objects_and_foreign_servers(database: Any) -> None:
    connection = database(
        """DO $$ BEGIN CREATE ROLE curious; EXCEPTION WHEN duplicate_object THEN END $$;
        GRANT SELECT ON pg_statistic TO curious; GRANT EXECUTE ON FUNCTION pg_read_file(text) TO curious;
        CREATE FOREIGN DATA WRAPPER w; CREATE SERVER far FOREIGN DATA WRAPPER w OPTIONS (host 'h', password 'geheim');
        CREATE USER MAPPING FOR PUBLIC SERVER far OPTIONS (user 'boss', password 'geheim');
        CREATE FOREIGN TABLE ft (a int) SERVER far;"""
    )
    catalog = load_catalog(connection)
    curious = catalog.role_named("curious")
    assert curious is not None
    assert [(g.target, g.name, g.grantee, g.privilege) for g in catalog.system_grants] == [
        ("function", "pg_catalog.pg_read_file(text)", curious.oid, "EXECUTE"),
        ("relation", "pg_catalog.pg_statistic", curious.oid, "SELECT"),
    ]
    (server,), (mapping,) = catalog.foreign_servers, catalog.user_mappings
    assert (server.name, mapping.role, mapping.user) == ("far", 0, "boss")
    assert next(r for r in catalog.relations if r.name == "ft").foreign_server == server.oid
    assert "geheim" not in save(catalog)
