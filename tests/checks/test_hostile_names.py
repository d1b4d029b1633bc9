"""Names that try to be run: what a fix says in a remark or in a quote must stay there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rlsaudit.checks._examples import SOUND

from rlsaudit.catalog.identifiers import quote, remark

Make = Callable[..., Any]
BREAK = "x\nDROP TABLE canary; --"
CANARY = "CREATE TABLE canary (x int);\n"


def _stands(made: Any) -> bool:
    return made.connection.execute("SELECT to_regclass('canary') IS NOT NULL").fetchone() == (True,)


def test_a_remark_is_one_line() -> None:
    assert remark("of\r\n\x0b\u2028public.a") == "-- of public.a"


def test_a_name_with_a_line_break_does_not_leave_its_remark(schema: Make) -> None:
    policy = "CREATE POLICY wide ON invoices FOR SELECT USING (tenant_id > 0);"
    made = schema(f"{SOUND}{CANARY}{policy}ALTER TABLE invoices RENAME TO {quote(BREAK)};")
    found = [finding for finding in made.findings() if "canary" in finding.fix and finding.check == "RLS605"]
    assert found
    for finding in found:
        made.execute(finding.fix)
    assert _stands(made)


def test_a_name_does_not_end_the_quote_of_a_rewritten_function(schema: Make) -> None:
    name = quote("f$rewrite$; DROP TABLE canary; --")
    made = schema(
        f"{SOUND}{CANARY}CREATE FUNCTION {name}(t int) RETURNS void LANGUAGE sql"
        " AS $$ SELECT set_config('app.tenant_id', t::text, false) $$;"
    )
    (finding,) = made.of("RLS403")
    made.execute(finding.fix)
    assert _stands(made)
    assert not made.of("RLS403")


def test_views_that_join_themselves_are_read_in_time(schema: Make) -> None:
    views = "".join(
        f"CREATE VIEW v{n} AS SELECT a.tenant_id, a.id FROM v{n - 1} a JOIN v{n - 1} b USING (id);"
        for n in range(1, 12)
    )
    made = schema(f"{SOUND}CREATE VIEW v0 AS SELECT * FROM invoices;{views}GRANT SELECT ON v11 TO app;")
    (finding,) = made.of("RLS301")
    assert finding.object == "public.v11"
    assert finding.severity == "critical"
    assert "()" not in finding.message
