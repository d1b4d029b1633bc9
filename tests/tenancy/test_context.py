"""How a session says for whom it acts, inferred."""

from __future__ import annotations

import json

import pytest

from rlsaudit.probe.ground.statement_text import acting


def _statements(loaded) -> list[tuple[str, tuple[str, ...]]]:
    return [(persona.name, acting(persona, "7", "8")) for persona in loaded.tenancy.context.personas]


def _effect(loaded, number: int = 0, *settings: str) -> tuple[str | None, ...]:
    """Values of ``settings`` after the persona's statements ran."""
    persona = loaded.tenancy.context.personas[number]
    with loaded.connect() as connection, connection.transaction():
        for statement in acting(persona, "7", "8"):
            connection.execute(statement)
        query = "SELECT current_setting(%s, true)"
        return tuple(connection.execute(query, (name,)).fetchone()[0] for name in settings)


ROLE = "CREATE ROLE x_app LOGIN;"


def test_plain_setting(schema) -> None:
    loaded = schema(f"""{ROLE}
        CREATE TABLE t (tenant_id int);
        CREATE POLICY p ON t USING (tenant_id = current_setting('app.tenant_id')::int);
        GRANT SELECT ON t TO x_app;""")
    assert loaded.tenancy.context.settings == ("app.tenant_id",)
    assert _effect(loaded, 0, "app.tenant_id") == ("7",)


@pytest.mark.parametrize("scope", ["true", "false"])
def test_wrapper_function_with_two_arguments(schema, scope) -> None:
    loaded = schema(f"""{ROLE}
        CREATE TABLE t (tenant_id int, user_id int);
        CREATE FUNCTION set_ctx(tenant int, usr int) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
            PERFORM set_config('app.tenant_id', tenant::text, {scope});
            PERFORM set_config('app.user_id', usr::text, {scope}); END $$;
        CREATE POLICY p ON t USING (tenant_id = current_setting('app.tenant_id', true)::int
            AND user_id = current_setting('app.user_id', true)::int);
        GRANT SELECT ON t TO x_app;""")
    assert any("set_ctx" in statement for _, statements in _statements(loaded) for statement in statements)
    assert _effect(loaded, 0, "app.tenant_id", "app.user_id") == ("7", "8")


def test_wrapper_that_no_application_role_may_call_is_passed_over(schema) -> None:
    loaded = schema(f"""{ROLE}
        CREATE TABLE t (tenant_id int);
        CREATE FUNCTION set_ctx(tenant int) RETURNS void LANGUAGE sql AS $$ SELECT set_config('app.tenant_id', tenant::text, true) $$;
        REVOKE EXECUTE ON FUNCTION set_ctx FROM PUBLIC;
        CREATE POLICY p ON t USING (tenant_id = current_setting('app.tenant_id', true)::int);
        GRANT SELECT ON t TO x_app;""")
    assert not any("set_ctx" in statement for _, statements in _statements(loaded) for statement in statements)
    assert _effect(loaded, 0, "app.tenant_id") == ("7",)


def test_claims_document(schema) -> None:
    loaded = schema(f"""{ROLE}
        CREATE TABLE t (org_id int, owner_id int);
        CREATE POLICY p ON t USING (
            org_id = (current_setting('request.jwt.claims', true)::json -> 'app_metadata' ->> 'org_id')::int
            AND owner_id = (current_setting('request.jwt.claims', true)::json ->> 'sub')::int);
        GRANT SELECT ON t TO x_app;""")
    (document,) = _effect(loaded, 0, "request.jwt.claims")
    assert json.loads(document or "") == {"app_metadata": {"org_id": "7"}, "sub": "8"}


def test_role_like_setting_makes_personas(schema) -> None:
    loaded = schema(f"""{ROLE}
        CREATE TABLE t (tenant_id int);
        CREATE POLICY a ON t USING (tenant_id = current_setting('app.tenant_id', true)::int);
        CREATE POLICY b ON t USING (current_setting('app.role', true) = 'admin');
        CREATE POLICY c ON t USING (current_setting('app.role', true) = 'support');
        GRANT SELECT ON t TO x_app;""")
    found = {_effect(loaded, n, "app.role") for n in range(len(loaded.tenancy.context.personas))}
    assert {("admin",), ("support",)} < found
    assert len(found) == 3, "and one that is neither"


def test_list_partitions_name_the_keys(schema) -> None:
    loaded = schema("""
        CREATE TABLE t (customer_id text NOT NULL, x int) PARTITION BY LIST (customer_id);
        CREATE TABLE t_a PARTITION OF t FOR VALUES IN ('acme');
        CREATE TABLE t_b PARTITION OF t FOR VALUES IN ('o''neill', 'zeta');
        CREATE POLICY p ON t USING (customer_id = current_setting('app.customer_id', true));
    """)
    assert set(loaded.tenancy.key_values) == {"acme", "o'neill", "zeta"}


def test_no_policies_no_context(schema) -> None:
    loaded = schema("CREATE TABLE a (tenant_id int); CREATE TABLE b (tenant_id int);")
    assert loaded.tenancy.context.settings == ()
    assert loaded.tenancy.context.why


def test_settings_read_by_functions_triggers_and_defaults(schema) -> None:
    loaded = schema(f"""{ROLE}
        CREATE FUNCTION tenant() RETURNS int LANGUAGE sql STABLE AS $$ SELECT current_setting('my.tenant_id', true)::int $$;
        CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN NEW.actor := current_setting('my.user_id', true); RETURN NEW; END $$;
        CREATE TABLE t (tenant_id int, actor text, region text DEFAULT current_setting('my.region', true));
        CREATE TRIGGER fills BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION fill();
        CREATE POLICY p ON t USING (tenant_id = tenant());
        GRANT SELECT ON t TO x_app;""")
    assert set(loaded.tenancy.context.settings) == {"my.tenant_id", "my.user_id", "my.region"}
    assert _effect(loaded, 0, "my.tenant_id", "my.user_id") == ("7", "8")
