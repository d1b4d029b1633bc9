"""``rlsaudit init`` writes what was inferred; loading it gives the same tenancy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rlsaudit.config import load
from rlsaudit.demo import demos, path
from rlsaudit.inferred import as_toml
from rlsaudit.tenancy.infer import infer
from rlsaudit.tenancy.model import Tenancy

HOSTILE = r"""
CREATE ROLE "app ""quoted"" 'x' \ ünï" LOGIN;
CREATE SCHEMA "Sch.ema ]";
CREATE TABLE "Sch.ema ]"."weird"".name
[relations]" ("tenant""Id" int NOT NULL, "#" text);
CREATE TABLE "Sch.ema ]"."'''" ("tenant""Id" int NOT NULL);
CREATE TABLE "Sch.ema ]"."queue = 1" (x int);
CREATE POLICY p ON "Sch.ema ]"."'''" USING ("tenant""Id" = current_setting('app.tenant_id')::int
    AND current_setting('app.role') IN ('"', 'it''s', '\'));
GRANT USAGE ON SCHEMA "Sch.ema ]" TO "app ""quoted"" 'x' \ ünï";
GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA "Sch.ema ]" TO "app ""quoted"" 'x' \ ünï";
"""


def _round_trip(loaded, directory: Path) -> tuple[Tenancy, Tenancy]:
    (directory / "rlsaudit.toml").write_text(as_toml(loaded.catalog, loaded.tenancy), encoding="utf-8")
    return loaded.tenancy, infer(loaded.catalog, load(None, directory).declared)


def _essence(tenancy: Tenancy) -> Tenancy:
    """Without the reasons, which say inferred or declared."""
    return replace(
        tenancy,
        relations={oid: replace(c, why="", declared=False) for oid, c in tenancy.relations.items()},
        context=replace(tenancy.context, why="", declared=False, direct=None),
        roles=tuple(replace(role, why="") for role in tenancy.roles),
        notes=(),
    )


@pytest.mark.parametrize("demo", demos(), ids=lambda demo: demo.filename.removesuffix(".sql"))
def test_demo_round_trip(demo, schema, tmp_path) -> None:
    inferred, again = _round_trip(schema(path(demo).read_text(encoding="utf-8")), tmp_path)
    assert _essence(again) == _essence(inferred)


def test_hostile_names_round_trip(schema, tmp_path) -> None:
    loaded = schema(HOSTILE)
    assert [role.name for role in loaded.tenancy.roles] == ["app \"quoted\" 'x' \\ ünï"]
    assert len(loaded.tenancy.context.personas) == 4
    inferred, again = _round_trip(loaded, tmp_path)
    # What could not be classified is written as global, to be looked at.
    changed = {oid for oid in inferred.relations if inferred.of(oid).kind != again.of(oid).kind}
    assert {loaded.catalog.relation(oid).name for oid in changed} == {"queue = 1"}
    same = {oid: c for oid, c in inferred.relations.items() if oid not in changed}
    assert _essence(replace(again, relations={oid: again.of(oid) for oid in same})) == _essence(
        replace(inferred, relations=same)
    )


def test_comments_cannot_become_configuration(schema, tmp_path) -> None:
    loaded = schema(HOSTILE)
    text = as_toml(loaded.catalog, loaded.tenancy)
    for line in text.splitlines():
        assert line == "" or line.startswith(
            (
                "#",
                "roles = ",
                "[",
                "key = ",
                "name = ",
                "login = ",
                "opening = ",
                "statements = ",
                '    "',
                "]",
                "class = ",
                "reason = ",
            )
        ), line
