"""How long the prover takes for a policy: 1,000 distinct ones, and 1,000 tables that share one.

    python bench/prove_rate.py [--pg-bin DIR] [N]

Each policy is that of a table of its own, FOR ALL, so that four questions are asked; the shapes are those of real
schemas, from a plain comparison to a membership looked up.  ``z3`` is the time in which the solver decides one trivial
goal for each question, in the same run.  ``median``, ``mean`` and ``p95`` are of all that is asked about a distinct
policy.  All is processor time, in milliseconds; the limit is 10 for each policy.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psycopg
import z3
from measure import Figure, asked, at_most, tell
from psycopg import sql

from rlsaudit.catalog.expression import Expression
from rlsaudit.catalog.load import load_catalog
from rlsaudit.catalog.visibility import visibility_of
from rlsaudit.prove import prove as proving
from rlsaudit.prove.judge import Question, Result, judge
from rlsaudit.source.server import ScratchServer
from rlsaudit.tenancy.infer import Declared, infer

LIMIT = 10
"""For a policy."""

CTX = "NULLIF(current_setting('app.tenant_id', true), '')::uuid"
ME = "NULLIF(current_setting('app.user_id', true), '')::uuid"
CLAIMS = "NULLIF(current_setting('request.jwt.claims', true), '')::jsonb"
SHAPES = (
    f"tenant_id = {CTX}",
    f"tenant_id = (SELECT {CTX})",
    "tenant_id::text = current_setting('app.tenant_id', true)",
    f"CASE WHEN {CTX} IS NULL THEN false ELSE tenant_id = {CTX} END",
    f"COALESCE(tenant_id = {CTX}, false)",
    f"NOT tenant_id IS DISTINCT FROM {CTX}",
    f"tenant_id = ({CLAIMS} ->> 'tenant_id')::uuid",
    "tenant_id = of_session()",
    "tenant_id = of_procedure()",
    f"tenant_id IN (SELECT m.tenant_id FROM members m WHERE m.user_id = {ME})",
    f"EXISTS (SELECT FROM members m WHERE m.tenant_id = {{table}}.tenant_id AND m.user_id = {ME})",
    "is_member(tenant_id)",
    "tenant_id = ANY (string_to_array(current_setting('app.tenant_id', true), ',')::uuid[])",
    f"tenant_id = {CTX} OR current_setting('app.admin', true) = 'on'",
    f"tenant_id = {CTX} OR shared",
    "tenant_id::text LIKE current_setting('app.tenant_id', true) || '%'",
)
MORE = ("state <> 's{number}'", "size < {number}", "lower(state) = 's{number}'", "state IN ('a', 's{number}')")
SETUP = f"""
CREATE ROLE rate_app;
CREATE TABLE tenants (id uuid PRIMARY KEY); CREATE TABLE users (id uuid PRIMARY KEY);
CREATE TABLE members (tenant_id uuid NOT NULL REFERENCES tenants, user_id uuid NOT NULL REFERENCES users,
  PRIMARY KEY (tenant_id, user_id));
GRANT SELECT ON members TO rate_app;
CREATE FUNCTION of_session() RETURNS uuid STABLE LANGUAGE sql AS $$ SELECT {CTX} $$;
CREATE FUNCTION of_procedure() RETURNS uuid STABLE LANGUAGE plpgsql AS
  $$ DECLARE t uuid := {CTX}; BEGIN IF t IS NULL THEN RAISE 'no tenant'; END IF; RETURN t; END $$;
CREATE FUNCTION is_member(of uuid) RETURNS boolean STABLE SECURITY DEFINER LANGUAGE sql SET search_path = '' AS
  $$ SELECT EXISTS (SELECT 1 FROM public.members m WHERE m.tenant_id = of AND m.user_id = {ME}) $$;
"""
TABLE = """
CREATE TABLE {table} (id int, tenant_id uuid NOT NULL REFERENCES tenants, state text, size int, shared boolean NOT NULL);
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; GRANT ALL ON {table} TO rate_app;
CREATE POLICY p ON {table} USING ({condition})
"""


def conditions(count: int) -> list[str]:
    """As many different policies; ``{table}`` stands for the table."""
    return [
        f"({SHAPES[number % len(SHAPES)]}) AND {MORE[number // len(SHAPES) % len(MORE)].format(number=number)}"
        for number in range(count)
    ]


def build(connection: psycopg.Connection[Any], policies: Iterable[str]) -> None:
    connection.execute(SETUP)
    for number, condition in enumerate(policies):
        table = f"rated_{number}"
        text = condition.replace("{table}", table)
        connection.execute(sql.SQL(TABLE).format(table=sql.Identifier(table), condition=sql.SQL(text)))  # type: ignore[arg-type]
        if number % 100 == 99:
            connection.commit()  # a transaction holds one lock per relation
    connection.commit()


def measure(server: ScratchServer, name: str, policies: list[str]) -> Figure:
    server.create_database("rate")
    try:
        with server.connect("rate") as connection:
            build(connection, policies)
            catalog = load_catalog(connection)
    finally:
        server.drop_database("rate")
        with server.connect() as connection:
            connection.execute("DROP ROLE rate_app")
    tenancy = infer(catalog, Declared(roles=("rate_app",)))
    times: defaultdict[Expression, float] = defaultdict(float)
    asked_for = 0

    def timed(question: Question) -> Result:
        nonlocal asked_for
        asked_for += 1
        begun = time.process_time()
        result = judge(question)
        times[question.bounds[0][1]] += 1000 * (time.process_time() - begun)
        return result

    proving.judge = timed
    begun = time.process_time()
    proofs = proving.prove(catalog, tenancy, visibility_of(catalog))
    whole = 1000 * (time.process_time() - begun)
    proving.judge = judge
    each = sorted(times.values())
    verdicts = ", ".join(f"{n} {verdict}" for verdict, n in sorted(Counter(p.verdict for p in proofs).items()))
    said = (
        f" ms a policy ({whole / trivial(asked_for):.1f} × z3 with a trivial goal for each of {asked_for:,} questions); of "
        f"{len(each)} distinct ones median {statistics.median(each):.2f}, mean {statistics.fmean(each):.2f}, "
        f"p95 {each[int(0.95 * len(each))]:.2f}; {verdicts}"
    )
    return at_most(f"prove, {len(policies):,} policies, {name}", whole / len(policies), LIMIT, said=said)


def trivial(count: int) -> float:
    """Milliseconds in which the solver decides as many trivial goals."""
    begun = time.process_time()
    for _ in range(count):
        solver = z3.SimpleSolver()
        solver.from_string("(declare-fun a () Int) (declare-fun b () Int) (assert (= a b)) (assert (not (= b a)))")
        solver.check()
    return 1000 * (time.process_time() - begun)


def main() -> None:
    parser = asked(__doc__)
    parser.add_argument("count", nargs="?", type=int)
    parser.add_argument("--pg-bin", type=Path)
    given = parser.parse_args()
    count = given.count or (200 if given.quick else 1000)
    sources = {"distinct": conditions(count), "all the same": conditions(count + 1)[-1:] * count}
    with ScratchServer(given.pg_bin) as server:
        tell([measure(server, name, policies) for name, policies in sources.items()], given.figures)


if __name__ == "__main__":
    main()
