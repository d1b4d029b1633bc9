"""How long a whole scan takes on schemas that a program writes: the time of each phase, by the number of tables.

``own`` and ``server`` are seconds of processor time, of this program and of the scratch server.

    python bench/probe_scale.py                    20 and 100 tables, one session per core
    python bench/probe_scale.py 20 100 300 --jobs 2
    python bench/probe_scale.py 50 100 --triggers
    python bench/probe_scale.py --source schema.sql

Tables have a composite primary key, a tenant key, a CHECK, a default and, four in five, a foreign key to the one before;
with ``--triggers`` also one that stamps every row, and another that writes a line into a log.
"""

from __future__ import annotations

import resource
import tempfile
import time
from io import BytesIO
from pathlib import Path

from measure import Figure, asked, tell

from rlsaudit.options import Options
from rlsaudit.scan import scan

HEAD = """
CREATE ROLE g_owner NOLOGIN; CREATE ROLE g_app LOGIN; GRANT CREATE ON SCHEMA public TO g_owner; SET ROLE g_owner;
CREATE TABLE tenants (id int PRIMARY KEY, name text NOT NULL);
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON tenants USING (id = NULLIF(current_setting('app.tenant_id', true), '')::int);
GRANT SELECT ON tenants TO g_app;
"""
TABLE = """
CREATE TABLE t{at} (
    tenant_id int NOT NULL REFERENCES tenants, id int NOT NULL, title text NOT NULL, body text,
    status text NOT NULL DEFAULT 'new' CHECK (status IN ('new', 'open', 'done')), amount numeric(12, 2),
    created timestamptz NOT NULL DEFAULT now(){reference}, PRIMARY KEY (tenant_id, id)
);
ALTER TABLE t{at} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON t{at} USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::int);
GRANT SELECT, INSERT, UPDATE, DELETE ON t{at} TO g_app;
"""

TRIGGERS = """
CREATE TABLE log (tenant_id int NOT NULL, at timestamptz NOT NULL DEFAULT now(), what text NOT NULL);
ALTER TABLE log ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON log USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::int);
GRANT SELECT ON log TO g_app;
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.created := now(); RETURN NEW; END$$;
CREATE FUNCTION logged() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS
    $$BEGIN INSERT INTO log (tenant_id, what) VALUES (NEW.tenant_id, TG_OP); RETURN NEW; END$$;
"""
TRIGGERED = """
CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON t{at} FOR EACH ROW EXECUTE FUNCTION stamp();
CREATE TRIGGER logged AFTER INSERT OR UPDATE ON t{at} FOR EACH ROW EXECUTE FUNCTION logged();
"""


def schema(tables: int, *, triggers: bool = False) -> str:
    """A sound schema of that many tables, the registry of tenants among them."""
    made = [HEAD, TRIGGERS if triggers else ""]
    for at in range(tables - 1):
        before = f"t{at - 1}"
        linked = f", {before}_id int, FOREIGN KEY (tenant_id, {before}_id) REFERENCES {before} (tenant_id, id)"
        made.append(TABLE.format(at=at, reference=linked if at % 5 else ""))
        made.append(TRIGGERED.format(at=at) if triggers else "")
    return "".join(made)


def measured(name: str, source: str, jobs: int, budget: float) -> Figure:
    """One scan: verdict, cells, statements, and seconds in all and in each phase."""
    began, used = time.monotonic(), processor()
    layers: dict[str, float] = {}
    current, since = "", began

    def progress(what: str, done: int, of: int) -> None:
        nonlocal current, since
        now = time.monotonic()
        layer = what.partition(" as ")[0]
        if layer != current:
            layers[current] = layers.get(current, 0) + now - since
            current, since = layer, now

    report = scan(Options(source=source, stdin=BytesIO(), budget=budget, jobs=jobs), progress).report
    layers[current] = layers.get(current, 0) + time.monotonic() - since
    slowest = sorted(((spent, layer) for layer, spent in layers.items() if layer), reverse=True)[:4]
    said = ", ".join(f"{layer} {spent:.1f} s" for spent, layer in slowest)
    own, server = (f"{now - before:.1f}" for before, now in zip(used, processor(), strict=True))
    return Figure(
        f"scan, {name}: {report.verdict}, {len(report.cells):,} cells, {report.statements:,} statements",
        f"{time.monotonic() - began:.1f} s, own {own} s, server {server} s; {said}",
    )


def processor() -> list[float]:
    """Seconds of processor time, of this process and of its children that have ended."""
    who = (resource.getrusage(one) for one in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return [one.ru_utime + one.ru_stime for one in who]


def main() -> None:
    options = asked(__doc__)
    options.add_argument("tables", nargs="*", type=int)
    options.add_argument("--source", action="append", default=[], help="an SQL file of one's own instead")
    options.add_argument("--triggers", action="store_true", help="every table has two")
    options.add_argument("--jobs", type=int, default=0)
    options.add_argument("--budget", type=float, default=1.0)
    given = options.parse_args()
    figures = [measured(source, source, given.jobs, given.budget) for source in given.source]
    with tempfile.TemporaryDirectory() as directory:
        for tables in () if given.source else given.tables or ([20] if given.quick else [20, 100]):
            path = Path(directory) / f"{tables}.sql"
            path.write_text(schema(tables, triggers=given.triggers), encoding="utf-8")
            figures.append(measured(f"{tables} tables", str(path), given.jobs, given.budget))
    tell(figures, given.figures)


if __name__ == "__main__":
    main()
