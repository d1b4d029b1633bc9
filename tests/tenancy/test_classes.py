"""What each relation is, inferred from small schemas."""

from __future__ import annotations

import pytest

from rlsaudit.errors import UsageError
from rlsaudit.tenancy.infer import Declared, DeclaredRelation, infer
from rlsaudit.tenancy.model import Context, Persona

_SETTING = "NULLIF(current_setting('app.tenant_id', true), '')::int"
_USER = "NULLIF(current_setting('app.user_id', true), '')::int"

SCHEMA = f"""
CREATE ROLE t_app LOGIN;
CREATE TABLE tenants (id int PRIMARY KEY, name text);
CREATE TABLE users (id int PRIMARY KEY, email text);
CREATE TABLE members (tenant_id int NOT NULL REFERENCES tenants, user_id int NOT NULL REFERENCES users, PRIMARY KEY (tenant_id, user_id));
CREATE TABLE projects (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, title text);
CREATE TABLE tasks (id int PRIMARY KEY, project_id int NOT NULL REFERENCES projects, title text);
CREATE TABLE comments (id int PRIMARY KEY, task_id int NOT NULL REFERENCES tasks, body text);
CREATE TABLE articles (id int PRIMARY KEY, tenant_id int REFERENCES tenants, body text);
CREATE TABLE countries (code text PRIMARY KEY);
CREATE TABLE jobs (id int PRIMARY KEY, payload text);
CREATE TABLE alembic_version (version_num text PRIMARY KEY);
CREATE SEQUENCE numbers;
CREATE TABLE events (tenant_id int NOT NULL, at date) PARTITION BY RANGE (at);
CREATE TABLE events_2030 PARTITION OF events FOR VALUES FROM ('2030-01-01') TO ('2031-01-01');
CREATE VIEW titles AS SELECT title FROM projects;
CREATE VIEW codes AS SELECT code FROM countries;
CREATE POLICY own ON tenants USING (id = {_SETTING});
CREATE POLICY own ON projects USING (tenant_id = {_SETTING}
    AND EXISTS (SELECT FROM members m WHERE m.tenant_id = projects.tenant_id AND m.user_id = {_USER}));
CREATE POLICY own ON articles USING (tenant_id IS NULL OR tenant_id = {_SETTING});
GRANT SELECT ON ALL TABLES IN SCHEMA public TO t_app;
GRANT INSERT ON jobs TO t_app;
"""


@pytest.fixture
def loaded(schema):
    return schema(SCHEMA)


def test_every_class(loaded) -> None:
    kinds = {
        relation.name: loaded.tenancy.of(relation.oid).kind
        for relation in loaded.catalog.relations
    }  # fmt: skip
    assert kinds == {
        "tenants": "registry",
        "users": "principal",
        "members": "membership",
        "projects": "tenant",
        "tasks": "tenant",
        "comments": "tenant",
        "articles": "tenant",
        "events": "tenant",
        "events_2030": "tenant",
        "titles": "tenant",
        "countries": "global",
        "codes": "global",
        "jobs": "unclassified",
        "alembic_version": "infrastructure",
        "numbers": "infrastructure",
    }


def test_everything_has_a_reason(loaded) -> None:
    assert all(classified.why for classified in loaded.tenancy.relations.values())
    assert loaded.tenancy.context.why
    assert all(role.why for role in loaded.tenancy.roles)


def test_keys_and_paths(loaded) -> None:
    tenancy = loaded.tenancy
    assert (tenancy.key_type, tenancy.user_type, tenancy.registry) == (
        "integer",
        "integer",
        loaded.oid("public.tenants"),
    )
    assert tenancy.key_columns[0] == "tenant_id"
    assert loaded.of("public.tenants").key == "id"
    assert (loaded.of("public.projects").key, loaded.of("public.projects").path) == ("tenant_id", ())
    comments = loaded.of("public.comments")
    assert [loaded.catalog.relation(step.relation).name for step in comments.path] == ["tasks", "projects"]
    assert comments.path[0].columns == ("task_id",)
    assert comments.key == "tenant_id"


def test_only_rows_whose_policy_admits_null_are_shared(loaded) -> None:
    shared = {loaded.catalog.relation(oid).name for oid, c in loaded.tenancy.relations.items() if c.shared_rows}
    assert shared == {"articles"}


def test_principal_columns(loaded) -> None:
    columns = {loaded.catalog.relation(oid).name: names for oid, names in loaded.tenancy.principal_columns.items()}
    assert columns["members"] == ("user_id",)
    assert columns["users"] == ("id",)


def test_key_by_foreign_key_to_the_registry_whatever_its_name(schema) -> None:
    loaded = schema("""
        CREATE TABLE accounts (account_id uuid PRIMARY KEY);
        CREATE TABLE a (account_id uuid NOT NULL REFERENCES accounts);
        CREATE TABLE b (account_id uuid NOT NULL REFERENCES accounts);
        CREATE TABLE c (belongs_to uuid NOT NULL REFERENCES accounts);
    """)
    assert loaded.of("public.accounts").kind == "registry"
    assert (loaded.of("public.c").kind, loaded.of("public.c").key) == ("tenant", "belongs_to")
    assert loaded.tenancy.key_type == "uuid"


def test_no_policy_at_all_by_name(schema) -> None:
    loaded = schema("CREATE TABLE a (org_id int, x text); CREATE TABLE b (org_id int, y text);")
    assert {c.kind for c in loaded.tenancy.relations.values()} == {"tenant"}
    assert loaded.tenancy.key_columns == ("org_id",)


def test_another_spelling_of_the_key(schema) -> None:
    loaded = schema(
        'CREATE TABLE a (customer_id int); CREATE TABLE b (customer_id int); CREATE TABLE c ("customerId" int);'
    )
    assert loaded.of("public.c").key == "customerId"


def test_nothing_to_go_by(schema) -> None:
    loaded = schema(
        "CREATE ROLE t_app; CREATE TABLE a (x int); CREATE TABLE b (y int); GRANT SELECT ON a TO t_app; GRANT DELETE ON b TO t_app;"
    )
    assert (loaded.of("public.a").kind, loaded.of("public.b").kind) == (
        "global",
        "unclassified",
    ) or loaded.tenancy.roles == ()
    assert loaded.tenancy.key_columns == ()


def test_cycles_and_self_references_end(schema) -> None:
    loaded = schema("""
        CREATE TABLE a (tenant_id int NOT NULL, id int PRIMARY KEY, parent int REFERENCES a);
        CREATE TABLE a2 (tenant_id int NOT NULL, id int PRIMARY KEY);
        CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a);
        CREATE TABLE c (id int PRIMARY KEY, b int REFERENCES b);
        ALTER TABLE b ADD c int REFERENCES c;
    """)
    assert [len(loaded.of(f"public.{name}").path) for name in "abc"] == [0, 1, 2]


def test_configuration_overrides(loaded) -> None:
    declared = Declared(
        roles=("t_app",),
        keys=("tenant_id",),
        context=Context((Persona("p", ("SELECT 1",)),), declared=True),
        relations={
            "public.jobs": DeclaredRelation("global", reason="a queue"),
            "public.countries": DeclaredRelation("tenant", "code"),
        },
    )
    tenancy = infer(loaded.catalog, declared)
    assert loaded.of("public.jobs", tenancy).kind == "global"
    assert "a queue" in loaded.of("public.jobs", tenancy).why
    countries = loaded.of("public.countries", tenancy)
    assert (countries.kind, countries.key, countries.declared) == ("tenant", "code", True)
    assert tenancy.context.personas == (Persona("p", ("SELECT 1",)),)
    assert tenancy.context.settings == ("app.tenant_id", "app.user_id"), "a declared context must be tried empty too"
    assert [role.name for role in tenancy.roles] == ["t_app"]


@pytest.mark.parametrize(
    ("declared", "word"),
    [
        (Declared(roles=("nobody",)), "nobody"),
        (Declared(relations={"public.gone": DeclaredRelation("global")}), "public.gone"),
        (Declared(relations={"public.jobs": DeclaredRelation("tenant", "gone")}), "gone"),
    ],
)
def test_configuration_that_does_not_fit(loaded, declared, word) -> None:
    with pytest.raises(UsageError, match=word):
        infer(loaded.catalog, declared)
