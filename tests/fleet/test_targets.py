"""Where the targets of a fleet come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlsaudit.errors import UsageError
from rlsaudit.fleet.targets import Target, of_cluster, read
from rlsaudit.source.server import ScratchServer


def test_a_file_of_targets(schemas: Path) -> None:
    (schemas / "fleet.toml").write_text(
        '[defaults]\nroles = ["a", "b"]\ntime_limit = "2m"\n'
        '[targets.one]\nsource = "sound.sql"\nconfig = "c/rlsaudit.toml"\nseed = 4\n'
        '[targets."b.2"]\nsource = "service=two"\ntime_limit = "1h"\nmode = "audit"\nretries = 0\n'
    )
    one, two = read(schemas / "fleet.toml")
    assert one == Target(
        "one", str(schemas / "sound.sql"), ("a", "b"), str(schemas / "c/rlsaudit.toml"), seed=4, time_limit=120
    )
    assert two == Target("b.2", "service=two", ("a", "b"), mode="audit", time_limit=3600, retries=0)
    assert two.arguments() == ["audit", "service=two", "--role", "a", "--role", "b"]


def test_a_directory_of_services_gives_no_password_away(tmp_path: Path) -> None:
    (tmp_path / "pg_service.conf").write_text("[one]\nhost=a\npassword=canary\n[two words]\ndbname=b\n")
    targets = read(tmp_path)
    assert [(one.name, one.source) for one in targets] == [
        ("one", "service=one"),
        ("xtwo_20words", "service='two words'"),
    ]
    assert {one.service_file for one in targets} == {str(tmp_path / "pg_service.conf")}
    assert "canary" not in repr(targets)


def test_no_service_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "one.conf").write_text("[DEFAULT]\nhost=a\n[one]\nhost=b\n")
    assert [target.name for target in read(tmp_path)] == ["DEFAULT", "one"]
    (tmp_path / "two.conf").symlink_to(tmp_path / "gone")
    with pytest.raises(UsageError, match=r"two\.conf: No such file"):
        read(tmp_path)


def test_the_databases_of_a_cluster() -> None:
    with ScratchServer() as server:
        for name in ("b", "a x", "../up"):
            server.create_database(name)
        source = server.conninfo("postgres")
        found = of_cluster(source, "", Target("", "", ("app",)))
        assert [one.name for one in found] == ["x.._2fup", "xa_20x", "b"]
        assert found[2].roles == ("app",)
        assert "dbname=b" in found[2].source
        chosen = of_cluster(source, "SELECT datname FROM pg_database WHERE datname = 'b'", Target("", ""))
        assert [one.name for one in chosen] == ["b"]
        with pytest.raises(UsageError, match="names no database"):
            of_cluster(source, "SELECT 'x' WHERE false", Target("", ""))
        with pytest.raises(UsageError, match=r"--query: .*syntax error"):
            of_cluster(source, "SELEKT", Target("", ""))
        with pytest.raises(UsageError, match=r"--query: .*read-only"):
            of_cluster(source, "CREATE TABLE t ()", Target("", ""))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no target"),
        ("[targets.a]", "has no source"),
        ('[targets.a]\nsource = ""', "has no source"),
        ('[targets.a]\nsource = "x"\nrole = ["y"]', "targets.a.role: unknown; did you mean roles?"),
        ('[targets.a]\nsource = "x"\nroles = "y"', "targets.a.roles: must be a list of texts"),
        ('[targets.a]\nsource = "x"\nretries = true', "targets.a.retries: must be int"),
        ('[targets.a]\nsource = "x"\nmode = "look"', "'look' is none of scan, audit"),
        ('[targets.a]\nsource = "x"\ntime_limit = "soon"', "soon: give seconds"),
        ('[targets."../a"]\nsource = "x"', "because it names a directory"),
        ('[targets.a]\nsource = "x"\n[targets.A]\nsource = "y"', "two targets are called a"),
        ('[defaults]\nsource = "x"', "every target has a source of its own"),
        ('[targets."Fleet.json"]\nsource = "x"', "is the name of a file of the report"),
        ("[targets", "Expected"),
        ("[servers.a]", "servers: unknown"),
    ],
)
def test_what_is_no_fleet(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "fleet.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        read(tmp_path / "fleet.toml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
