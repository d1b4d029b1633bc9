"""Append-only tables: what a trigger or a rule refuses throughout is judged in a copy where that is switched off."""

from __future__ import annotations

import pytest

SCHEMA = """
DO $$ BEGIN CREATE ROLE b_app LOGIN; EXCEPTION WHEN duplicate_object THEN END $$;
CREATE TABLE tenants (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE entries (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, body text NOT NULL);
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
ALTER TABLE entries ENABLE ROW LEVEL SECURITY;
CREATE FUNCTION own() RETURNS int LANGUAGE sql STABLE AS $$ SELECT NULLIF(current_setting('app.tenant_id', true), '')::int $$;
CREATE POLICY p ON tenants USING (id = own());
CREATE POLICY read_own ON entries FOR SELECT USING (tenant_id = own());
CREATE POLICY add_own ON entries FOR INSERT WITH CHECK (tenant_id = own());
CREATE POLICY change ON entries FOR UPDATE USING ({0});
CREATE POLICY remove ON entries FOR DELETE USING ({0});
CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'entries stay as they are' {2}; END $$;
{1}
GRANT SELECT ON tenants TO b_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON entries TO b_app;
"""
OWN = "tenant_id = own()"
BARS = [
    pytest.param("CREATE TRIGGER stay BEFORE UPDATE OR DELETE ON entries FOR EACH ROW EXECUTE FUNCTION never();", "", id="row"),
    pytest.param("CREATE TRIGGER stay BEFORE UPDATE OR DELETE ON entries EXECUTE FUNCTION never();", "", id="statement"),
    pytest.param(
        "CREATE TRIGGER stay BEFORE UPDATE OR DELETE ON entries FOR EACH ROW EXECUTE FUNCTION never();",
        "USING ERRCODE = 'insufficient_privilege'",
        id="as a denial",
    ),
    pytest.param(
        "CREATE TRIGGER stay BEFORE UPDATE OR DELETE ON entries FOR EACH ROW EXECUTE FUNCTION never();",
        "USING ERRCODE = 'check_violation'",
        id="as a constraint's error",
    ),
    pytest.param(
        "CREATE TRIGGER stay BEFORE UPDATE OR DELETE ON entries EXECUTE FUNCTION never();",
        "USING ERRCODE = 'feature_not_supported'",
        id="as impossible",
    ),
    *(
        pytest.param(
            "CREATE TRIGGER stay BEFORE UPDATE OR DELETE ON entries FOR EACH ROW EXECUTE FUNCTION never();"
            f"ALTER TABLE entries ENABLE {when} TRIGGER stay;",
            "",
            id=when,
        )
        for when in ("ALWAYS", "REPLICA")
    ),
    pytest.param(
        "CREATE RULE stay AS ON UPDATE TO entries DO INSTEAD NOTHING; CREATE RULE stays AS ON DELETE TO entries DO INSTEAD NOTHING;",
        "",
        id="rule",
    ),
]  # fmt: skip


def _cells(schema, *parts: str):
    cells = schema(SCHEMA.format(*parts)).probe(proving=True).cells
    return {cell.command: cell for cell in cells if cell.relation == "public.entries"}


@pytest.mark.parametrize(("bar", "code"), BARS)
def test_sound_policies_hold_behind_it(schema, bar, code) -> None:
    cells = _cells(schema, OWN, bar, code)
    assert {command: cell.state for command, cell in cells.items()} == dict.fromkeys(cells, "held")
    for command in ("UPDATE", "DELETE") if "REPLICA" not in bar else ():
        assert "with stay" in cells[command].reason, cells[command].reason
        assert "with row security off the same statements cross" in cells[command].reason


@pytest.mark.parametrize(("bar", "code"), BARS)
def test_open_policies_behind_it_are_no_pass(schema, bar, code) -> None:
    cells = _cells(schema, "true", bar, code)
    for command in ("UPDATE", "DELETE"):
        if "REPLICA" in bar:  # which fires for no session of the application
            assert cells[command].state == "leak"
            continue
        assert cells[command].state == "not covered"
        assert "all hangs on" in cells[command].reason, cells[command].reason


def test_a_table_that_nothing_bars_is_left_as_it_was(schema) -> None:
    cells = _cells(schema, OWN, "", "")
    assert {cell.state for cell in cells.values()} == {"held"}
    assert not any("switched off own" in cell.reason for cell in cells.values())
    assert {
        cell.state for command, cell in _cells(schema, "true", "", "").items() if command in ("UPDATE", "DELETE")
    } == {"leak"}


def test_what_a_rule_does_elsewhere_is_not_switched_off(schema) -> None:
    elsewhere = (
        "CREATE TABLE changes (id int, tenant_id int, body text);"
        "CREATE RULE stay AS ON UPDATE TO entries DO INSTEAD INSERT INTO changes VALUES (OLD.id, OLD.tenant_id, NEW.body);"
    )
    cells = _cells(schema, OWN, elsewhere, "")
    assert "switched off own" not in cells["UPDATE"].reason


@pytest.mark.parametrize("code", ["", "USING ERRCODE = 'check_violation'", "USING ERRCODE = 'feature_not_supported'"])
def test_inserts_that_a_trigger_refuses_are_no_pass_of_an_open_policy(schema, code) -> None:
    bar = "CREATE TRIGGER stay BEFORE INSERT ON entries FOR EACH ROW EXECUTE FUNCTION never();"
    made = SCHEMA.replace("WITH CHECK (tenant_id = own())", "WITH CHECK (true)")
    cells = schema(made.format(OWN, bar, code)).probe(proving=True).cells
    (cell,) = (one for one in cells if one.relation == "public.entries" and one.command == "INSERT")
    assert cell.state == "not covered", cell.reason


WAYS_IN = [
    pytest.param("PERFORM set_config('app.tenant_id', NEW.tenant_id::text, true);", "", id="sets the context"),
    pytest.param("UPDATE entries SET body = NEW.body WHERE id <> NEW.id;", "SECURITY DEFINER", id="writes by itself"),
    pytest.param("NEW.body := 'free';", "", id="changes the row"),
    pytest.param("PERFORM own();", "", id="calls"),
]


@pytest.mark.parametrize(("does", "definer"), WAYS_IN)
def test_a_trigger_that_does_more_than_refuse_is_no_pass(schema, does, definer) -> None:
    bar = f"""
        CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql {definer} AS $$ BEGIN
            IF NEW.body !~ '^INV-[0-9]{{4}}-[a-z]{{3}}$' THEN RAISE EXCEPTION 'bad body'; END IF; {does} RETURN NEW; END $$;
        CREATE TRIGGER stay BEFORE UPDATE ON entries FOR EACH ROW EXECUTE FUNCTION guard();
    """
    cells = _cells(schema, OWN, bar, "")
    assert cells["UPDATE"].state == "not covered", cells["UPDATE"].reason


def test_what_is_not_proven_is_no_pass_behind_it(schema) -> None:
    hidden = (
        """tenant_id = own() OR (SELECT bool_and(length(word) > 9) FROM regexp_split_to_table(body, '-') AS word)"""
    )
    cells = _cells(schema, hidden, BARS[0].values[0], "")
    assert {cells[command].state for command in ("UPDATE", "DELETE")} <= {"not covered", "leak"}
