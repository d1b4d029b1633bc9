from __future__ import annotations

import io
from pathlib import Path

import pytest

from rlsaudit.errors import UsageError
from rlsaudit.source.layouts import recognise
from rlsaudit.source.migrations import collect, without_down
from rlsaudit.source.open import detect, layout, sql_files


def tree(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"select '{name}';\n")
    return root


def order(root: Path) -> list[str]:
    return [str(file.path.relative_to(root)) for file in collect(recognise(root)) if file.path]


@pytest.mark.parametrize(
    "expected",
    [
        ["V1__a.sql", "V1_1__b.sql", "V1.2__c.sql", "V2__b.sql", "V10__c.sql", "R__views.sql"],
        ["2_b.sql", "0003_c.sql", "0010_a.sql"],
        ["20230101000000_b.sql", "20230101000001_a.SQL", "20240101_init.sql"],
        ["20200101_init/migration.sql", "20200102_more/migration.sql"],
        ["1.sql", "1²2.sql", "²3.sql"],
        ["1/2.sql", "1/10.sql", "2/1.sql"],
        ["a.sql", "b.sql"],
    ],
)
def test_versions_in_order(tmp_path: Path, expected: list[str]) -> None:
    if "20240101_init.sql" in expected:
        expected = ["20240101_init.sql", *expected[:2]]  # a smaller number, as its tool would apply it
    tree(tmp_path, *reversed(expected))
    assert order(tmp_path) == expected


def test_what_undoes_is_left_out(tmp_path: Path) -> None:
    tree(
        tmp_path,
        "1_a.up.sql",
        "1_a.down.sql",
        "U1__a.sql",
        "V1__a.sql",
        "x/up.sql",
        "x/down.sql",
        "2-up.sql",
        "2-down.sql",
        "3.undo.sql",
        "6_b.sql",
        "6_rollback.sql",
        "7_slow_down.sql",
        "20240601_revert.sql",
        "4_countdown.sql",
        "5_break_down.sql.bak",
        "revert/a.sql",
        ".hidden/a.sql",
        "node_modules/a.sql",
        "notes.md",
    )
    assert order(tmp_path) == [
        "V1__a.sql", "1_a.up.sql", "2-up.sql", "4_countdown.sql", "6_b.sql", "7_slow_down.sql", "20240601_revert.sql",
        "x/up.sql",
    ]  # fmt: skip


def test_a_migrations_directory_is_taken_alone(tmp_path: Path) -> None:
    tree(
        tmp_path,
        "supabase/migrations/2_b.sql",
        "supabase/migrations/1_a.sql",
        "supabase/tests/t.sql",
        "z.sql",
    )
    assert order(tmp_path) == ["supabase/migrations/1_a.sql", "supabase/migrations/2_b.sql"]
    assert order(tmp_path / "supabase") == ["migrations/1_a.sql", "migrations/2_b.sql"]


LAYOUTS = {
    "Flyway": (
        "src/main/resources/db/migration",
        ["beforeMigrate.sql", "B2__all.sql", "V2_1__b.sql", "V10__c.sql", "R__a.sql", "R__b.sql", "afterMigrate.sql"],
        ["V1__old.sql", "V2__in_the_baseline.sql", "U10__c.sql", "afterClean.sql", "afterMigrateError.sql"],
    ),
    "Prisma": (
        "prisma/migrations",
        ["20230101000000_init/migration.sql", "20240201_more/migration.sql"],
        ["20240101_init/notes.sql", "migration_lock.toml"],
    ),
    "Supabase": (
        "supabase/migrations",
        ["20230101000000_a.sql", "20240101_b.sql", "20240201000000_c.sql"],  # by text, as its tool has it
        ["snippet.sql"],
    ),
    "Graphile Migrate": (
        "migrations",
        ["committed/000001.sql", "committed/000002.sql", "current/1.sql", "current/10-b.sql"],
        ["other.sql"],
    ),
    "golang-migrate": ("db/migrations", ["1_a.up.sql", "10_b.up.sql"], ["1_a.down.sql", "10_b.down.sql"]),
    "Hasura": ("migrations", ["default/1_a/up.sql", "default/2_b/up.sql"], ["default/1_a/down.sql"]),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_of_tools(tmp_path: Path, name: str) -> None:
    place, run, left = LAYOUTS[name]
    tree(tmp_path / place, *reversed(run), *left)
    found = recognise(tmp_path)
    assert (found.name, [str(path.relative_to(tmp_path / place)) for path in found.paths]) == (name, run)
    assert layout(str(tmp_path)).startswith(
        f"The migrations were read as {name}: {len(run)} files were run, {run[0]} first"
    )


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (["1_a.sql", "2_b.go", "3_c.sql"], "2_b.go"),
        (["V1__a.sql", "V2__b.java"], "V2__b.java"),
        (["migrations/1_a.sql", "supabase/migrations/1_b.sql"], "migrations"),
        (["prisma/migrations/migration_lock.toml", "prisma/migrations/1_a/migration.sql", "prisma/migrations/1_a/b.sql"],
         "prisma/migrations/1_a/b.sql"),
        (["1_a.sql", "2_b.py", "3.py", "4_c.rb", "5_c.rb", "6_d.js", "7_d.js", "8_e.js"], "6_d.js and 2 more"),
        (["1_a.sql", "main.go", "node_modules/1_a.js", "down/1_a.js", "README.md"], ""),
        (["V1__old.sql", "B2__all.sql", "V3__a.sql", "U3__a.sql", "afterClean.sql"], ""),
        (["db/structure.sql", "db/migrate/20200101_a.rb"], ""),
    ],
)  # fmt: skip
def test_what_may_build_the_schema_too_and_is_not_run_is_told(tmp_path: Path, files: list[str], told: str) -> None:
    tree(tmp_path, *files)
    said = layout(str(tmp_path))
    assert ("Not run, though it may belong to the schema: " in said) == bool(told)
    assert told in said


@pytest.mark.parametrize(
    ("mark", "name"),
    [
        ("-- +goose Up", "goose"),
        ("-- migrate:up", "dbmate"),
        ("-- +migrate Up", "sql-migrate"),
        ("-- rambler up", "rambler"),
        ("-- a remark", "files in the order of their names"),
    ],
)
def test_layouts_by_their_marks(tmp_path: Path, mark: str, name: str) -> None:
    tree(tmp_path, "1_a.sql")
    (tmp_path / "1_a.sql").write_text(f"{mark}\nselect 1;\n")
    assert recognise(tmp_path).name == name


def test_a_sqitch_plan_gives_the_order(tmp_path: Path) -> None:
    tree(
        tmp_path,
        "db/deploy/users.sql",
        "db/deploy/app/rows.sql",
        "db/deploy/users@v1.sql",
        "db/revert/users.sql",
        "z.sql",
    )
    (tmp_path / "sqitch.conf").write_text('[core]\n\tengine = pg\n\ttop_dir = db\n[engine "pg"]\n\tclient = psql\n')
    plan = tmp_path / "db" / "sqitch.plan"
    head = "%syntax-version=1.0.0\n%project=p\n\n"
    line = "2024-01-01T00:00:00Z A <a@b> # why"
    plan.write_text(f"{head}users {line}\napp/rows [users] {line}\n@v1 {line}\n\nusers [users@v1] {line}\n")
    assert recognise(tmp_path).name == "sqitch"
    assert order(tmp_path) == ["db/deploy/users@v1.sql", "db/deploy/app/rows.sql", "db/deploy/users.sql"]
    plan.write_text(f"{head}gone {line}\n")
    with pytest.raises(UsageError, match=r"sqitch.plan: names .*gone.sql, which is not there"):
        recognise(tmp_path)
    plan.write_text(head)
    with pytest.raises(UsageError, match="plans no change"):
        recognise(tmp_path)


def test_a_drizzle_journal_gives_the_order(tmp_path: Path) -> None:
    tree(tmp_path, "drizzle/0000_b.sql", "drizzle/0001_a.sql", "drizzle/left.sql")
    journal = tmp_path / "drizzle" / "meta" / "_journal.json"
    journal.parent.mkdir()
    journal.write_text('{"entries": [{"idx": 1, "tag": "0001_a"}, {"idx": 0, "tag": "0000_b"}]}')
    assert recognise(tmp_path).name == "Drizzle"
    assert order(tmp_path) == ["drizzle/0000_b.sql", "drizzle/0001_a.sql"]
    journal.write_text("[]")
    with pytest.raises(UsageError, match="not a journal of Drizzle"):
        recognise(tmp_path)


def test_rails_keeps_one_file(tmp_path: Path) -> None:
    tree(tmp_path, "db/structure.sql", "db/seeds.sql")
    assert order(tmp_path) == ["db/structure.sql"]
    assert "read as Rails structure.sql: 1 file was run" in layout(str(tmp_path))


def test_no_migrations(tmp_path: Path) -> None:
    (tmp_path / "a.down.sql").write_text("drop table t;")
    with pytest.raises(UsageError, match=r"no \.sql migrations there"):
        recognise(tmp_path)


@pytest.mark.parametrize(
    ("up", "down"),
    [
        ("-- +goose Up", "-- +goose Down"),
        ("-- migrate:up", "-- migrate:down transaction:false"),
        ("-- +migrate Up", "  -- +migrate Down"),
        ("-- rambler up", "-- rambler down"),
        ("-- Up Migration", "-- Down Migration"),
        ("-- ==== UP ====", "-- ==== DOWN ===="),
    ],
)
def test_down_sections_are_blanked_and_lines_kept(up: str, down: str) -> None:
    body = "-- +goose StatementBegin\nselect 1;\n-- +goose StatementEnd"
    text = f"{up}\n{body}\n{down}\ndrop table t;\n{up}\nselect 2;\n"
    shown = without_down(text)
    assert "drop" not in shown
    assert shown.splitlines()[2] == "select 1;"
    assert shown.splitlines()[7] == "select 2;"
    assert without_down("-- Down migration is not needed\nselect 1;") == "-- Down migration is not needed\nselect 1;"
    assert without_down("select 1; -- no marks down\n") == "select 1; -- no marks down\n"


def test_kinds_of_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, "a.sql", "b.JSON", "odd=name.sql")
    monkeypatch.chdir(tmp_path)
    kinds = {
        "-": "stdin",
        "": "dsn",
        "a.sql": "file",
        "b.JSON": "snapshot",
        ".": "directory",
        "odd=name.sql": "file",
        "postgresql://h/d": "dsn",
        "postgres://h/d": "dsn",
        "service=x": "dsn",
        "host=/tmp dbname=x": "dsn",
    }
    assert {source: detect(source) for source in kinds} == kinds


@pytest.mark.parametrize("source", ["missing.sql", "mysql://u:canary@h/d", "postgresql+psycopg://u:canary@h/d", "a\0b"])
def test_no_source(source: str) -> None:
    with pytest.raises(UsageError) as caught:
        detect(source)
    assert "\n" not in str(caught.value)
    assert "canary" not in str(caught.value)


def test_sql_behind_a_source(tmp_path: Path) -> None:
    tree(tmp_path, "a.sql")
    nothing = io.BytesIO(b" \n")
    assert [file.text for file in sql_files(str(tmp_path / "a.sql"), nothing)] == ["select 'a.sql';\n"]
    assert sql_files("-", io.BytesIO(b"select 1;"))[0].name == "<stdin>"
    with pytest.raises(UsageError, match="empty"):
        sql_files("-", nothing)
