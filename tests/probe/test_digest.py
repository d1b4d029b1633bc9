"""The digest looks at what a transaction has changed, wherever the change was carried, and at little else."""

from __future__ import annotations

import pytest

from rlsaudit.probe.ground import oracle
from rlsaudit.probe.ground.digest import DIGEST, digest_of, install
from rlsaudit.probe.ground.world import Tenant
from rlsaudit.probe.seeding.populate import digest

TENANTS = (Tenant("a", "1", "1"), Tenant("b", "2", "2"))
SCHEMA = """
CREATE ROLE d_app LOGIN;
CREATE TABLE item (id int PRIMARY KEY, tenant_id int NOT NULL, name text);
CREATE TABLE part (id int PRIMARY KEY, tenant_id int NOT NULL, item int REFERENCES item ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE note (id int PRIMARY KEY, tenant_id int NOT NULL, part int REFERENCES part ON DELETE SET NULL);
CREATE TABLE seen (id int PRIMARY KEY, tenant_id int NOT NULL, what text);
CREATE TABLE triggered (id int PRIMARY KEY, tenant_id int NOT NULL, what text);
CREATE TABLE deferred (id int PRIMARY KEY, tenant_id int NOT NULL, what text);
CREATE TABLE ruled (id int PRIMARY KEY, tenant_id int NOT NULL, what text);
CREATE TABLE guarded (id int PRIMARY KEY, tenant_id int NOT NULL, what text);
CREATE TABLE checked (id int PRIMARY KEY, tenant_id int NOT NULL, what text);
CREATE TABLE base (id int, tenant_id int NOT NULL, what text);
CREATE TABLE derived () INHERITS (base);
CREATE TABLE parted (id int, tenant_id int NOT NULL, what text) PARTITION BY LIST (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1) PARTITION BY LIST (tenant_id);
CREATE TABLE parted_11 PARTITION OF parted_1 DEFAULT;
CREATE TABLE parted_2 PARTITION OF parted DEFAULT;
CREATE TABLE alone (id int PRIMARY KEY, tenant_id int NOT NULL, what text);
CREATE FUNCTION also() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
    $$BEGIN UPDATE seen SET what = what || '!' WHERE tenant_id = 2; RETURN NULL; END$$;
CREATE TRIGGER also AFTER UPDATE OR TRUNCATE ON triggered FOR EACH STATEMENT EXECUTE FUNCTION also();
CREATE CONSTRAINT TRIGGER also AFTER UPDATE ON deferred DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION also();
CREATE RULE also AS ON UPDATE TO ruled DO ALSO UPDATE seen SET what = 'ruled' WHERE id = 2;
CREATE FUNCTION tick(given int) RETURNS boolean LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS
    $$BEGIN UPDATE seen SET what = 'ticked' WHERE tenant_id = 2; RETURN true; END$$;
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY tick ON guarded USING (tick(tenant_id));
ALTER TABLE checked ADD CHECK (tick(tenant_id)) NOT VALID;
CREATE FUNCTION dynamic() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS
    $$BEGIN EXECUTE format('DELETE FROM %I WHERE tenant_id = 2', 'se' || 'en'); END$$;
CREATE FUNCTION caught() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$BEGIN
    UPDATE seen SET what = 'kept'; BEGIN DELETE FROM alone; RAISE 'no'; EXCEPTION WHEN OTHERS THEN END; END$$;
CREATE VIEW shown AS SELECT * FROM alone;
CREATE FUNCTION instead() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
    $$BEGIN DELETE FROM note WHERE tenant_id = 2; RETURN NEW; END$$;
CREATE VIEW elsewhere AS SELECT * FROM alone;
CREATE TRIGGER instead INSTEAD OF UPDATE ON elsewhere FOR EACH ROW EXECUTE FUNCTION instead();
INSERT INTO item SELECT i, i, 'i' FROM generate_series(1, 2) AS i;
INSERT INTO part SELECT i, i, i FROM generate_series(1, 2) AS i;
INSERT INTO note SELECT i, i, i FROM generate_series(1, 2) AS i;
DO $$DECLARE t text; BEGIN FOREACH t IN ARRAY '{seen,triggered,deferred,ruled,guarded,base,derived,parted,alone}'::text[] LOOP
    EXECUTE format('INSERT INTO %I SELECT i, i, ''x'' FROM generate_series(1, 2) AS i', t); END LOOP; END$$;
INSERT INTO checked VALUES (1, 1, 'x'), (2, 2, 'x');
UPDATE seen SET what = 'x';
DO $$DECLARE t text; BEGIN FOR t IN SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v')
    LOOP EXECUTE format('GRANT ALL ON %I TO d_app', t); END LOOP; END$$;
"""
WRITES = {
    "INSERT INTO alone VALUES (9, 2, 'n')": {"alone"},
    "UPDATE alone SET tenant_id = 2": {"alone"},
    "MERGE INTO alone USING seen ON alone.id = seen.id WHEN MATCHED THEN DELETE": {"alone"},
    "WITH gone AS (DELETE FROM alone RETURNING *) SELECT count(*) FROM gone": {"alone"},
    "PREPARE p AS DELETE FROM alone; EXECUTE p": {"alone"},
    "DECLARE c CURSOR FOR SELECT FROM alone FOR UPDATE; FETCH c; DELETE FROM alone WHERE CURRENT OF c": {"alone"},
    "DELETE FROM shown": {"alone"},
    "UPDATE elsewhere SET what = 'y'": {"note"},
    "DELETE FROM item": {"item", "part", "note"},
    "UPDATE item SET id = id + 10": {"item", "part"},
    "TRUNCATE alone": {"alone"},
    "TRUNCATE item CASCADE": {"item", "part", "note"},
    "TRUNCATE triggered": {"triggered", "seen"},
    "UPDATE triggered SET what = 'y'": {"triggered", "seen"},
    "UPDATE triggered SET what = 'y' WHERE false": {"seen"},
    "UPDATE deferred SET what = 'y'": {"deferred", "seen"},
    "UPDATE ruled SET what = 'y'": {"ruled", "seen"},
    "SELECT * FROM guarded": {"seen"},
    "INSERT INTO checked VALUES (9, 1, 'y')": {"checked", "seen"},
    "SELECT dynamic()": {"seen"},
    "SELECT caught()": {"seen"},
    "UPDATE base SET what = 'y'": {"base", "derived"},
    "DELETE FROM derived": {"derived"},
    "UPDATE parted SET what = 'y'": {"parted"},
    "DELETE FROM parted_11": {"parted"},
    "UPDATE parted_1 SET tenant_id = 2": {"parted"},
    "TRUNCATE parted_2": {"parted"},
    "INSERT INTO alone VALUES (8, 2, ''); SAVEPOINT s; DELETE FROM seen; ROLLBACK TO s": {"alone"},
    "SAVEPOINT s; DELETE FROM alone; RELEASE s": {"alone"},
    "SELECT * FROM alone, seen, item FOR UPDATE OF alone": set(),
    "LOCK TABLE alone IN ROW SHARE MODE": set(),
}


@pytest.fixture
def loaded(schema):
    found = schema(SCHEMA)
    with found.connect() as connection:
        install(connection, found.catalog, found.tenancy, TENANTS)
    return found


def test_every_write_is_seen_wherever_it_was_carried(loaded) -> None:
    names = {relation.oid: relation.name for relation in loaded.catalog.relations}
    with loaded.connect("d_app") as connection:
        before = digest(connection)
        assert {names[oid] for oid, _ in before} >= {"item", "parted", "derived"}
        assert "parted_11" not in {names[oid] for oid, _ in before}
        for statement, expected in WRITES.items():
            with connection.transaction(force_rollback=True):
                connection.execute(statement.encode(), prepare=False)
                connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
                shown, whole = digest(connection, DIGEST), digest(connection)
            truly = {
                oid
                for oid, who in {*before, *whole}
                if before.get((oid, who), ("0", "")) != whole.get((oid, who), ("0", ""))
            }
            assert {names[oid] for oid in truly} == expected, statement
            assert truly <= oracle.looked_at(shown), statement
            assert shown.items() <= whole.items(), statement
            assert (oracle.changed(before, shown, "3", frozenset("12")) is not None) == bool(expected), statement
            assert len(oracle.looked_at(shown)) <= len(expected) + 1, statement


def test_what_was_not_changed_is_not_looked_at(loaded) -> None:
    with loaded.connect("d_app") as connection, connection.transaction():
        connection.execute("SELECT count(*) FROM alone, item")
        assert digest(connection, DIGEST) == {}


def test_a_relation_that_is_emptied_is_told_from_one_that_was_not_looked_at(loaded) -> None:
    with loaded.connect("d_app") as connection, connection.transaction(force_rollback=True):
        connection.execute("DELETE FROM alone")
        assert digest(connection, DIGEST) == {(loaded.oid("public.alone"), ""): ("0", "")}
        assert digest(connection, digest_of([loaded.oid("public.base")])).keys() == {
            (loaded.oid("public.base"), owner) for owner in ("", "1", "2")
        }


def test_where_other_sessions_may_write_for_it_everything_is_looked_at(schema) -> None:
    found = schema(f"{SCHEMA} CREATE FOREIGN DATA WRAPPER other; CREATE SERVER other FOREIGN DATA WRAPPER other;")
    with found.connect() as connection:
        install(connection, found.catalog, found.tenancy, TENANTS)
    with found.connect("d_app") as connection:
        assert digest(connection, DIGEST) == digest(connection) != {}
