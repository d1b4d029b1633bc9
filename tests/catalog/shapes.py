"""Schemas that are wide in one way, by how wide: statements as a program writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

APP = "DO $$ BEGIN CREATE ROLE app LOGIN; EXCEPTION WHEN duplicate_object THEN END $$"
TABLE = """
CREATE TABLE {name} (id bigint PRIMARY KEY, tenant_id integer NOT NULL, name text{more}){tail};
CREATE INDEX ON {name} (tenant_id);
ALTER TABLE {name} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON {name} USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::int);
GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO app
"""


def table(name: str, more: str = "") -> str:
    return TABLE.format(name=name, more=more, tail="")


def roles(count: int) -> Iterator[str]:
    """Groups and logins by turns; a role after the first twenty is a member of three of those."""
    for at in range(50):
        yield table(f"t{at}")
    for at in range(count):
        yield f"CREATE ROLE r{count}_{at} {'LOGIN' if at % 2 else 'NOLOGIN'}"
        for group in {at % 4, 4 + at % 5, 9 + at % 10} if at >= 20 else ():
            yield f"GRANT r{count}_{group} TO r{count}_{at}"
        listed = ", ".join(f"t{(at + 5 * step) % 50}" for step in range(10))
        yield f"GRANT SELECT, INSERT, UPDATE ON {listed} TO r{count}_{at}"


def policies(count: int) -> Iterator[str]:
    """One permissive policy for each value of a column, as a generator of policies makes them."""
    yield table("t")
    for at in range(count):
        yield (
            f"CREATE POLICY p{at} ON t FOR SELECT USING (name = 'part {at}' AND "
            "tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::int)"
        )


def columns(count: int) -> Iterator[str]:
    kinds = (
        "integer",
        "text",
        "boolean NOT NULL DEFAULT false",
        "timestamptz DEFAULT now()",
        "bigint CHECK (c{at} > 0)",
    )
    yield table("t", "".join(f", c{at} {kinds[at % 5].format(at=at)}" for at in range(count - 3)))
    yield f"GRANT SELECT ({', '.join(f'c{at}' for at in range(count - 3))}) ON t TO PUBLIC"


def partitions(count: int) -> Iterator[str]:
    yield TABLE.replace(" PRIMARY KEY,", ",", 1).format(name="t", more="", tail=" PARTITION BY LIST (tenant_id)")
    for at in range(count):
        yield f"CREATE TABLE t{at} PARTITION OF t FOR VALUES IN ({at})"


def functions(count: int) -> Iterator[str]:
    for at in range(20):
        yield table(f"t{at}")
    for at in range(count):
        definer = " SECURITY DEFINER SET search_path = public, pg_temp" if at % 3 == 0 else ""
        if at % 10 == 9:
            yield (
                f"CREATE FUNCTION f{at}() RETURNS trigger LANGUAGE plpgsql{definer} AS "
                f"$$BEGIN NEW.name := upper(NEW.name); PERFORM f{at - 1}({at}); RETURN NEW; END$$"
            )
            yield f"CREATE TRIGGER f{at} BEFORE INSERT ON t{at % 20} FOR EACH ROW EXECUTE FUNCTION f{at}()"
        else:
            yield (
                f"CREATE FUNCTION f{at}(given integer) RETURNS bigint LANGUAGE {'sql' if at % 2 else 'plpgsql'} STABLE{definer} AS "
                + (
                    f"$$SELECT count(*) FROM t{at % 20} WHERE tenant_id = given$$"
                    if at % 2
                    else f"$$BEGIN RETURN (SELECT max(id) FROM t{at % 20} WHERE id > f{max(at - 2, 0)}(given)); END$$"
                )
            )


def tables(count: int) -> Iterator[str]:
    """Each refers to the one before and looks into it; every fourth has a view."""
    for at in range(count):
        before = max(at - 1, 0)
        yield table(
            f"t{at}",
            f", t{before}_id bigint REFERENCES t{before}, state text CHECK (state <> ''), UNIQUE (tenant_id, name)",
        )
        yield (
            f"CREATE POLICY also ON t{at} AS RESTRICTIVE FOR DELETE TO app "
            f"USING (EXISTS (SELECT FROM t{before} AS p WHERE p.tenant_id = t{at}.tenant_id))"
        )
        if at % 4 == 0:
            yield f"CREATE VIEW v{at} WITH (security_invoker) AS SELECT id, tenant_id FROM t{at}"


def schemas(count: int) -> Iterator[str]:
    """A copy of one schema for each tenant: the same names, in bodies without their schema."""
    for at in range(count):
        yield f"CREATE SCHEMA s{at}"
        yield f"GRANT USAGE ON SCHEMA s{at} TO app"
        yield table(f"s{at}.members", ", member text")
        yield table(f"s{at}.notes")
        yield (
            f"CREATE FUNCTION s{at}.tenant() RETURNS integer LANGUAGE plpgsql IMMUTABLE AS "
            "$$BEGIN RETURN (SELECT max(tenant_id) FROM members WHERE member = current_user); END$$"
        )
        yield (
            f"CREATE FUNCTION s{at}.mine(given integer) RETURNS boolean LANGUAGE plpgsql STABLE AS "
            "$$BEGIN RETURN given = tenant(); END$$"
        )
        yield f"CREATE POLICY also ON s{at}.notes AS RESTRICTIVE USING (s{at}.mine(tenant_id))"


SHAPES: dict[str, tuple[Callable[[int], Iterator[str]], int]] = {
    "tables": (tables, 1000),
    "roles": (roles, 1000),
    "policies": (policies, 2500),
    "columns": (columns, 800),
    "partitions": (partitions, 2000),
    "functions": (functions, 2000),
    "schemas": (schemas, 500),
}
"""Statements, and how wide it is where time is measured."""
