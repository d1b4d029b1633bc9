"""Statements that hang: the run ends, and says of the cell that nothing is known."""

from __future__ import annotations

from rlsaudit.probe.ground.session import Patience, Reply

HANGING = """
CREATE ROLE hang_app LOGIN;
CREATE TABLE slow (tenant_id integer NOT NULL, id integer, body text, PRIMARY KEY (tenant_id, id));
CREATE TABLE quick (LIKE slow INCLUDING ALL);
CREATE FUNCTION spin() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN LOOP PERFORM pg_sleep(0.01); END LOOP; RETURN NEW; END $$;
CREATE TRIGGER spinning BEFORE UPDATE ON slow FOR EACH ROW EXECUTE FUNCTION spin();
ALTER TABLE slow ENABLE ROW LEVEL SECURITY;
ALTER TABLE quick ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON slow USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::integer);
CREATE POLICY own ON quick USING (tenant_id = NULLIF(current_setting('app.tenant_id', true), '')::integer);
GRANT SELECT, INSERT, UPDATE, DELETE ON slow, quick TO hang_app;
"""


def test_what_hangs_is_not_covered_and_the_rest_is(schema) -> None:
    result = schema(HANGING).probe()
    cells = {(cell.relation, cell.command): cell for cell in result.cells}
    hung = cells["public.slow", "UPDATE"]
    assert (hung.state, hung.trials < 20) == ("not covered", True)
    assert hung.reason.startswith("6 of ")
    assert "ran into the timeout" in hung.reason
    rest = {cell.state for place, cell in cells.items() if place != ("public.slow", "UPDATE")}
    assert rest == {"held"}
    assert result.findings == ()


def test_patience_gets_shorter() -> None:
    patience = Patience()
    seen = []
    for _ in range(61):
        seen.append(patience.milliseconds)
        patience.note([Reply(sqlstate="57014")])
        patience.note([Reply(tag="SELECT 1")])
    assert (seen[0], seen[3], seen[4], seen[10], seen[60]) == (3000, 3000, 1000, 300, 100)
