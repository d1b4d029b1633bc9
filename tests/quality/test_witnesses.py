"""Holes that only certain rows show: the prover's witness, or what the server finds in its place, is put in and attacked."""

from __future__ import annotations

from io import BytesIO

import pytest

from rlsaudit.catalog.visibility import Visibility
from rlsaudit.cells import doubts_of
from rlsaudit.doubt import Doubt
from rlsaudit.options import Options
from rlsaudit.probe import doubting
from rlsaudit.probe.attacks import workload
from rlsaudit.probe.ground.world import Tenant
from rlsaudit.probe.result import ProbeResult
from rlsaudit.probe.run import probe
from rlsaudit.prove.prove import prove
from rlsaudit.scan import scan

_OWN = "tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::int"
_ME = "NULLIF(current_setting('app.user_id', true), '')::int"
_BASE = f"""
CREATE ROLE w_app LOGIN;
CREATE TABLE tenants (tenant_id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE projects (
    id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, stage text NOT NULL, level int NOT NULL
);
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON tenants FOR SELECT USING ({_OWN});
GRANT SELECT ON tenants TO w_app;
"""
_STAGED = "EXISTS (SELECT FROM projects AS p WHERE p.id = project_id AND p.stage = 'open-house' AND p.level {})"


def _items(condition: str, columns: str, more: str = "", granted: str = "SELECT, INSERT, UPDATE, DELETE") -> str:
    return (
        f"{_BASE} CREATE TABLE items (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, note text NOT NULL,"
        f" {columns}); ALTER TABLE items ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON items USING ({condition});"
        f"GRANT {granted} ON items TO w_app; {more}"
    )


_TIERS = "status text NOT NULL, tier int NOT NULL, region text NOT NULL, locked boolean NOT NULL"
_CONJUNCTION = "status = 'archived' AND tier = 7 AND region = 'eu-west-3' AND NOT locked"
_EVERYWHERE = [("INSERT", "forge"), ("SELECT", "read"), ("UPDATE", "write")]

# name: (the hole, the nearest sound thing, what is found of items)
REFUTED = {
    "several columns": (
        _items(f"{_OWN} OR ({_CONJUNCTION})", _TIERS), _items(f"{_OWN} AND ({_CONJUNCTION})", _TIERS), _EVERYWHERE,
    ),
    "two equal columns": (
        _items(f"{_OWN} OR (lo = hi AND lo > 500000 AND hi < 500002)", "lo int NOT NULL, hi int NOT NULL"),
        _items(f"{_OWN} OR (lo = hi AND lo > 500000 AND hi < 500001)", "lo int NOT NULL, hi int NOT NULL"), _EVERYWHERE,
    ),
    "numbers between": (
        _items(f"{_OWN} OR (amount > 5000 AND amount < 6000 AND tier > 40 AND tier < 42)", "amount int NOT NULL, tier int NOT NULL"),
        _items(f"{_OWN} OR (amount > 5000 AND amount < 6000 AND tier > 41 AND tier < 42)", "amount int NOT NULL, tier int NOT NULL"),
        _EVERYWHERE,
    ),
    "values of a parent": (
        _items(f"{_OWN} OR {_STAGED.format('= 12')}", "project_id int NOT NULL REFERENCES projects", "GRANT SELECT ON projects TO w_app;"),
        _items(f"{_OWN} AND {_STAGED.format('= 12')}", "project_id int NOT NULL REFERENCES projects", "GRANT SELECT ON projects TO w_app;"),
        _EVERYWHERE,
    ),
    "what an update makes of a row": (
        _items(_OWN, _TIERS, f"CREATE POLICY u ON items FOR UPDATE USING ({_OWN} AND tier = 31) WITH CHECK ({_CONJUNCTION});"),
        _items(_OWN, _TIERS, f"CREATE POLICY u ON items FOR UPDATE USING ({_OWN} AND tier = 31) WITH CHECK ({_OWN} AND {_CONJUNCTION});"),
        [("UPDATE", "forge")],
    ),
    "one author in two tenants": (
        _items(f"{_OWN} OR author_id = {_ME}", "author_id int NOT NULL", granted="SELECT, DELETE"),
        _items(f"{_OWN} AND author_id = {_ME}", "author_id int NOT NULL", granted="SELECT, DELETE"),
        [("DELETE", "write"), ("SELECT", "read")],
    ),
}  # fmt: skip
_MEMBERS = (
    "CREATE TABLE members (tenant_id int NOT NULL REFERENCES tenants, user_id int NOT NULL, role text NOT NULL, PRIMARY KEY"
    f" (tenant_id, user_id)); ALTER TABLE members ENABLE ROW LEVEL SECURITY; GRANT SELECT ON members TO w_app;"
    f" CREATE POLICY p ON members FOR SELECT USING (user_id = {_ME});"
)
_AUDITOR = (
    f"EXISTS (SELECT FROM members AS m WHERE m.user_id = {_ME} AND m.role = 'auditor' AND %s{_OWN.partition(' = ')[2]})"
)


def _membership(condition: str) -> str:
    return _items("false", "tier int NOT NULL", f"{_MEMBERS} CREATE POLICY m ON items USING ({condition});")


REFUTED["one user in two tenants"] = (
    _membership(f"{_OWN} OR {_AUDITOR % 'm.tenant_id <> '}"),
    _membership(f"{_OWN} AND {_AUDITOR % 'm.tenant_id = '}"),
    _EVERYWHERE,
)
_REMAINDER = "(amount * 3 + 7) % 97 = 21 AND amount > 60"
UNKNOWN = {
    "a remainder": (_REMAINDER, "amount int NOT NULL"),
    "a date between": ("(day > '2019-03-04' AND day < '2019-03-06' AND status = 'x9')", "day date NOT NULL, status text NOT NULL"),
    "a length": ("length(code) = 43", "code text NOT NULL"),
    "a key of a document": ("(meta ->> 'share') = 'everyone-7'", "meta jsonb NOT NULL DEFAULT '{}'"),
}  # fmt: skip


def _doubts(loaded) -> tuple[Doubt, ...]:
    return doubts_of(loaded.catalog, loaded.tenancy, prove(loaded.catalog, loaded.tenancy, Visibility(loaded.catalog)))


def _probed(loaded, doubts: tuple[Doubt, ...]) -> ProbeResult:
    return probe(
        loaded.server, loaded.name, loaded.catalog, loaded.tenancy, seed=0, budget=0.0, doubts=doubts,
        progress=lambda what, done, of: None,
    )  # fmt: skip


def _found(result: ProbeResult) -> list[tuple[str, str]]:
    leaks = [f for f in result.findings if f.object == "public.items" and f.property != "interference"]
    assert all(leak.confirmed for leak in leaks), [leak.message for leak in leaks]
    return sorted((leak.command, leak.property) for leak in leaks)


@pytest.mark.parametrize("name", REFUTED)
def test_witness_is_borne_out(schema, name) -> None:
    hole, _, wanted = REFUTED[name]
    loaded = schema(hole)
    doubts = [doubt for doubt in _doubts(loaded) if doubt.relation == "public.items"]
    assert {doubt.command for doubt in doubts if doubt.rows} >= {command for command, _ in wanted}
    assert not set(wanted) <= set(_found(_probed(loaded, ()))), "the sweep finds it without the prover's rows"
    result = _probed(loaded, tuple(doubts))
    assert set(wanted) <= set(_found(result))
    assert not any(cell.startswith("public.items") for cell, _, _ in result.settled)


@pytest.mark.parametrize("name", REFUTED)
def test_sound_neighbour_of_a_witness(schema, name) -> None:
    loaded = schema(REFUTED[name][1])
    assert _found(_probed(loaded, _doubts(loaded))) == []


@pytest.mark.parametrize("name", UNKNOWN)
def test_rows_that_the_server_finds(schema, name) -> None:
    condition, columns = UNKNOWN[name]
    loaded = schema(_items(f"{_OWN} OR ({condition})", columns))
    assert ("SELECT", "read") not in _found(_probed(loaded, ())), "the sweep finds it alone"
    assert ("SELECT", "read") in _found(_probed(loaded, _doubts(loaded)))


@pytest.mark.parametrize("name", UNKNOWN)
def test_sound_neighbour_of_what_is_not_proven(schema, name) -> None:
    condition, columns = UNKNOWN[name]
    loaded = schema(_items(f"{_OWN} AND ({condition})", columns))
    assert _found(_probed(loaded, _doubts(loaded))) == []


def test_search_that_time_ended_is_told(tmp_path, monkeypatch) -> None:
    """A cell that held and is not proven says that not all was tried."""
    monkeypatch.setattr(doubting, "_SECONDS", -1.0)
    condition, columns = UNKNOWN[min(UNKNOWN)]
    source = tmp_path / "schema.sql"
    source.write_text(_items(f"{_OWN} OR ({condition})", columns))
    report = scan(Options(source=str(source), stdin=BytesIO(), budget=0.0), lambda what, done, of: None).report
    reason = next(one.reason for one in report.cells if (one.relation, one.command) == ("public.items", "SELECT"))
    assert "no proof: " in reason
    assert "not all tried: that ends after 20 s" in reason


def test_witness_that_a_trigger_refuses(schema) -> None:
    """The cell is no leak, and what was tried is said."""
    refusing = (
        "CREATE FUNCTION no_seven() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.tier = 7 THEN RAISE 'not seven'; END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER guard BEFORE INSERT OR UPDATE ON items FOR EACH ROW EXECUTE FUNCTION no_seven();"
    )
    loaded = schema(_items(f"{_OWN} OR tier = 7", "tier int NOT NULL", refusing))
    result = _probed(loaded, _doubts(loaded))
    assert _found(result) == []
    assert "not seven" in result.settled["public.items", "w_app", "SELECT"].said


def test_row_that_is_shared_by_naming_a_tenant(schema) -> None:
    """Whom a row names beside its tenant may be meant to reach it: no leak is made of that."""
    shared = f"{_OWN} OR {_OWN.replace('tenant_id =', 'shared_with =', 1)}"
    loaded = schema(
        _items(shared, "shared_with int REFERENCES tenants", f"CREATE POLICY u ON items FOR UPDATE USING ({shared});")
    )
    assert [found for found in _found(_probed(loaded, _doubts(loaded))) if found[0] != "INSERT"] == []


def test_workloads_begin_with_what_is_not_proven(schema, monkeypatch) -> None:
    loaded = schema(_items(f"{_OWN} OR length(note) = 4300", "tier int NOT NULL"))
    drawn: list[set[int]] = []

    def searched(menus: dict[Tenant, tuple[workload.Step, ...]], *_: object) -> None:
        drawn.append({step.relation for menu in menus.values() for step in menu})

    monkeypatch.setattr(workload, "_search", searched)
    _probed(loaded, _doubts(loaded))
    assert drawn[0] == {loaded.oid("public.items")}
    assert {loaded.oid("public.items"), loaded.oid("public.tenants")} <= drawn[1]
    drawn.clear()
    _probed(loaded, ())
    assert len(drawn) == 1


_OWNED = (
    "ALTER TABLE tenants ADD {column} int NOT NULL, ADD level int; GRANT UPDATE ON tenants TO w_app;"
    f" CREATE POLICY o ON tenants FOR {{command}} USING ({{column}} = {_ME}%s);"
)
_OWNS = _OWNED.format(column="owner_id", command="SELECT")
_LINKS = (
    "CREATE TABLE members (tenant_id int NOT NULL REFERENCES tenants, user_id int NOT NULL, level int, PRIMARY KEY (tenant_id,"
    " user_id)); ALTER TABLE members ENABLE ROW LEVEL SECURITY; GRANT SELECT ON members TO w_app;"
    f" CREATE POLICY o ON members USING ({_OWN} OR user_id = {_ME}%s); CREATE POLICY m ON items FOR SELECT USING"
    f" ({_OWN} AND EXISTS (SELECT FROM members AS m WHERE m.user_id = {_ME} AND m.tenant_id = items.tenant_id));"
)


@pytest.mark.parametrize(("more", "table"), [(_OWNS, "public.tenants"), (_LINKS, "public.members")])
def test_what_ties_a_user_to_tenants_is_the_users_to_see(schema, more, table) -> None:
    loaded = schema(_items(_OWN, "tier int NOT NULL", more % ""))
    result = _probed(loaded, _doubts(loaded))
    assert [f.message for f in result.findings if f.object == table and f.property != "interference"] == []
    doubt = next(doubt for doubt in _doubts(loaded) if doubt.cell == (table, "w_app", "SELECT"))
    assert "name the acting user as one to whom their tenant belongs" in doubt.why


_REFERRED = _OWNED.format(column="referred_by", command="SELECT") % ""
_FORMER = _OWNED.format(column="former_owner_id", command="SELECT") % ""
_CHANGED = _OWNED.format(column="owner_id", command="ALL").replace("USING (", f"USING ({_OWN} OR ") % ""
_AUTHORS = (
    "CREATE TABLE docs (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, created_by int NOT NULL, body text);"
    " ALTER TABLE docs ENABLE ROW LEVEL SECURITY; GRANT SELECT ON docs TO w_app;"
    f" CREATE POLICY o ON docs USING ({_OWN} OR created_by = {_ME});"
    f" CREATE POLICY m ON items FOR SELECT USING ({_OWN} AND EXISTS (SELECT FROM docs AS d WHERE d.id = items.id));"
)
_MADE_OF = _OWNS.replace(f"= {_ME}", f"= CASE WHEN {_ME} IS NULL THEN 1 ELSE 2 END") % ""

_INVITED = (
    "CREATE TABLE members (id int PRIMARY KEY, tenant_id int NOT NULL REFERENCES tenants, user_id int NOT NULL, invited_by int"
    " NOT NULL); ALTER TABLE members ENABLE ROW LEVEL SECURITY; GRANT SELECT, UPDATE (user_id) ON members TO w_app;"
    f" CREATE POLICY s ON members FOR SELECT USING (user_id = {_ME});"
    f" CREATE POLICY u ON members FOR UPDATE USING (invited_by = {_ME} OR user_id = {_ME});"
    f" CREATE POLICY m ON items USING (tenant_id IN (SELECT m.tenant_id FROM members AS m WHERE m.user_id = {_ME}));"
)


@pytest.mark.parametrize(
    ("more", "table", "command"),
    [
        (_INVITED, "public.members", "UPDATE"),
        (_OWNS % " OR level = 4711", "public.tenants", "SELECT"),
        (_LINKS % " OR level = 4711", "public.members", "SELECT"),
        (_REFERRED, "public.tenants", "SELECT"),
        (_FORMER, "public.tenants", "SELECT"),
        (_CHANGED, "public.tenants", "UPDATE"),
        (_AUTHORS, "public.docs", "SELECT"),
    ],
)
def test_what_else_opens_such_rows_is_found(schema, more, table, command) -> None:
    loaded = schema(_items(_OWN, "tier int NOT NULL", more))
    leaks = {(f.object, f.command) for f in _probed(loaded, _doubts(loaded)).findings if f.confirmed}
    assert (table, command) in leaks


def test_what_is_made_of_a_users_name_is_no_users_name(schema) -> None:
    """Rows of several tenants are admitted, whichever the solver shows."""
    doubts = _doubts(schema(_items(_OWN, "tier int NOT NULL", _MADE_OF)))
    doubt = next(doubt for doubt in doubts if doubt.cell == ("public.tenants", "w_app", "SELECT"))
    assert doubt.rows
    assert "one session reaches rows of two tenants" in doubt.why
