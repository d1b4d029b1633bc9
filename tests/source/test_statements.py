from __future__ import annotations

from pathlib import Path

import pytest

from rlsaudit.errors import UsageError
from rlsaudit.source import server as scratch
from rlsaudit.source.statements import from_file, from_files, numbered, recorded


@pytest.mark.parametrize(
    ("text", "expected", "parameters"),
    [
        ("SELECT 1;", "SELECT 1", ()),
        ("SELECT * FROM t WHERE (id) = $1", "SELECT * FROM t WHERE (id) = $1", ("id",)),
        ("SELECT a::int FROM t WHERE b = :bar AND c=:'bar'", "SELECT a::int FROM t WHERE b = $1 AND c=$1", ("bar",)),
        (
            "SELECT * FROM t WHERE id = %s AND s LIKE '%s' AND n %% 2 = 0 AND x > %(foo)s",
            "SELECT * FROM t WHERE id = $1 AND s LIKE '%s' AND n % 2 = 0 AND x > $2",
            ("id", "foo"),
        ),
        ("SELECT $$ :no %s $$, ':no', a % b FROM t", "SELECT $$ :no %s $$, ':no', a % b FROM t", ()),
        (
            'INSERT INTO t (a, b, "C") VALUES (%s, lower(%s), %s)',
            'INSERT INTO t (a, b, "C") VALUES ($1, lower($2), $3)',
            ("a", "", "C"),
        ),
        (
            "UPDATE t SET a = $1 WHERE t.id = ANY ($2) AND z BETWEEN $3 AND $4",
            "UPDATE t SET a = $1 WHERE t.id = ANY ($2) AND z BETWEEN $3 AND $4",
            ("a", "id", "z", "z"),
        ),
    ],
)
def test_parameters_of_every_style(text: str, expected: str, parameters: tuple[str, ...]) -> None:
    found = numbered("x", text)
    assert (found.text, found.parameters) == (expected, parameters)


def test_a_file_of_statements(tmp_path: Path) -> None:
    path = tmp_path / "queries.sql"
    path.write_text(
        "-- name: ListNotes :many\nSELECT *\nFROM notes; -- all\n\nSELECT 1 AS one;\n-- name: by_id\n-- what it is for\n"
        "SELECT * FROM notes WHERE id = $1"
    )
    labels = [(one.label, one.text) for one in from_file(path)]
    assert labels == [
        ("queries.sql:2 ListNotes", "SELECT *\nFROM notes"),
        ("queries.sql:5", "SELECT 1 AS one"),
        ("queries.sql:8 by_id", "SELECT * FROM notes WHERE id = $1"),
    ]


def test_no_statement_takes_the_place_of_another(tmp_path: Path) -> None:
    """Two on one line, and two files of one name; a file named twice says nothing new."""
    texts = {"a/q.sql": "SELECT 1; SELECT 2;", "b/q.sql": "SELECT 3;"}
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    paths = [tmp_path / "a/q.sql", tmp_path / "b/q.sql", tmp_path / "a/q.sql"]
    found = {one.label: one.text for one in from_files(paths)}
    assert sorted(found.values()) == ["SELECT 1", "SELECT 2", "SELECT 3"]
    assert [one.label for one in from_files(paths[:1])] == ["q.sql:1", "q.sql:1 (2)"]
    assert all(label.startswith((f"{tmp_path}/a", f"{tmp_path}/b")) for label in found)


def test_what_only_holds_a_transaction_together_is_no_statement(tmp_path: Path) -> None:
    path = tmp_path / "queries.sql"
    path.write_text("BEGIN; -- a\nSET LOCAL app.tenant_id = '1';\n/* b */ (SELECT 1);\nSAVEPOINT s;\nCOMMIT;\n")
    assert [(one.label, one.text) for one in from_file(path)] == [("queries.sql:3", "(SELECT 1)")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (" -- nothing\n", "holds no statement"),
        ("\\i other.sql\n", "queries.sql:1: .i: a file of"),
        ("BEGIN; COMMIT;", "holds no statement"),
        ("COPY t FROM STDIN;\nSELECT 1;", "queries.sql:1: COPY … FROM STDIN takes what follows for its data"),
    ],
)
def test_no_file_of_statements(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "queries.sql"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        from_file(path)


def test_what_the_server_has_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(scratch._SETTINGS, "shared_preload_libraries", "pg_stat_statements")
    with scratch.ScratchServer() as server:
        with server.connect() as connection:
            connection.execute("CREATE ROLE plain LOGIN")
            with pytest.raises(UsageError, match="no extension pg_stat_statements"):
                recorded(connection)
            connection.execute("CREATE SCHEMA monitoring; CREATE EXTENSION pg_stat_statements SCHEMA monitoring")
            connection.execute("GRANT USAGE ON SCHEMA monitoring TO plain")
            connection.execute("CREATE TABLE notes (id integer, body text)")
            connection.execute("SELECT monitoring.pg_stat_statements_reset()")
            with pytest.raises(UsageError, match="run the application first"):
                recorded(connection)
            for number in range(3):
                connection.execute(f"SELECT body FROM notes WHERE id = {number}".encode())
            connection.execute("SELECT count(*) FROM pg_catalog.pg_class")
            found = recorded(connection)
            assert [(one.text, one.parameters) for one in found] == [("SELECT body FROM notes WHERE id = $1", ("id",))]
        with server.connect(user="plain") as connection, pytest.raises(UsageError, match="pg_read_all_stats"):
            recorded(connection)
