from __future__ import annotations

import io
from pathlib import Path

import pytest

from rlsaudit.errors import UsageError
from rlsaudit.source.migrations import collect, without_down
from rlsaudit.source.open import detect, sql_files


def tree(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"select '{name}';\n")
    return root


def order(root: Path) -> list[str]:
    return [str(file.path.relative_to(root)) for file in collect(root) if file.path]


@pytest.mark.parametrize(
    "expected",
    [
        ["V1__a.sql", "V1_1__b.sql", "V1.2__c.sql", "V2__b.sql", "V10__c.sql", "R__views.sql"],
        ["2_b.sql", "0003_c.sql", "0010_a.sql"],
        ["20230101000000_b.sql", "20230101000001_a.SQL", "20240101_init.sql"],
        ["20200101_init/migration.sql", "20200102_more/migration.sql"],
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
        "2-down.sql",
        "3.undo.sql",
        "4_countdown.sql",
        "5_break_down.sql.bak",
        "revert/a.sql",
        ".hidden/a.sql",
        "node_modules/a.sql",
        "notes.md",
    )
    assert order(tmp_path) == ["V1__a.sql", "1_a.up.sql", "4_countdown.sql", "x/up.sql"]


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


def test_no_migrations(tmp_path: Path) -> None:
    (tmp_path / "a.down.sql").write_text("drop table t;")
    with pytest.raises(UsageError, match=r"no \.sql migrations there"):
        collect(tmp_path)


@pytest.mark.parametrize(
    ("up", "down"),
    [
        ("-- +goose Up", "-- +goose Down"),
        ("-- migrate:up", "-- migrate:down transaction:false"),
        ("-- +migrate Up", "  -- +migrate Down"),
        ("-- rambler up", "-- rambler down"),
    ],
)
def test_down_sections_are_blanked_and_lines_kept(up: str, down: str) -> None:
    body = "-- +goose StatementBegin\nselect 1;\n-- +goose StatementEnd"
    text = f"{up}\n{body}\n{down}\ndrop table t;\n{up}\nselect 2;\n"
    shown = without_down(text)
    assert "drop" not in shown
    assert shown.splitlines()[2] == "select 1;"
    assert shown.splitlines()[7] == "select 2;"
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
