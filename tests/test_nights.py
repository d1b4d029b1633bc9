"""What random workloads learnt, on disk from one night to the next."""

from __future__ import annotations

import json
import stat

import pytest

from rlsaudit import nights
from rlsaudit.probe.attacks.learning import Learning, Neighbourhood, Visits

SOURCE = "service=production"
KNOWN = {("app", "public.t"): Visits(3, 450, 2.5, 0.5, "abc", {"SELECT 2", "UPDATE 42501"})}


def learnt(*relations: str, role: str = "app") -> Learning:
    """A night that has been to these relations."""
    learning = Learning()
    learning.offer(Neighbourhood(role, relation, (1,), "abc") for relation in relations)
    for relation in relations:
        learning.note((role, relation), "SELECT 2")
        learning.visited(Neighbourhood(role, relation, (1,), "abc"), 150, 1.25, 1)
    return learning


def test_the_next_night_knows_what_this_one_learnt(tmp_path) -> None:
    assert nights.load(tmp_path, SOURCE)[0].known == {}
    assert nights.save(tmp_path, SOURCE, learnt("public.t", 'public."ü"'), ["public.t", 'public."ü"']) == ()
    learning, said = nights.load(tmp_path, SOURCE)
    assert said == ()
    assert learning.known == {
        ("app", name): Visits(1, 150, 1.25, 1.0, "abc", {"SELECT 2"}) for name in ("public.t", 'public."ü"')
    }
    written = [*tmp_path.iterdir()]
    assert [stat.S_IMODE(path.stat().st_mode) for path in written] == [0o600]
    assert nights.load(None, SOURCE)[0].known == {}


def test_another_source_and_another_part_keep_theirs(tmp_path) -> None:
    nights.save(tmp_path, SOURCE, learnt("public.t"), ["public.t", "public.u"])
    nights.save(tmp_path, "other.sql", learnt("public.v"), ["public.v"])
    nights.save(tmp_path, SOURCE, learnt("public.u"), ["public.t", "public.u"])
    assert set(nights.load(tmp_path, SOURCE)[0].known) == {("app", "public.t"), ("app", "public.u")}
    nights.save(tmp_path, SOURCE, learnt("public.u"), ["public.u"])
    assert set(nights.load(tmp_path, SOURCE)[0].known) == {("app", "public.u")}, "a relation that is gone is forgotten"


def _place(**changed: object) -> str:
    place = {"role": "app", "relation": "public.t", "fingerprint": "a", "rounds": 1, "programs": 1, "seconds": 1}
    place |= {"fresh": 0, "outcomes": [], **changed}
    return json.dumps({"format": "rlsaudit-nights", "version": 1, "source": SOURCE, "places": [place]})


def test_a_whole_file_is_read(tmp_path) -> None:
    (tmp_path / nights.filename(SOURCE)).write_text(_place())
    assert len(nights.load(tmp_path, SOURCE)[0].known) == 1


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "{}", "\x00\xff", "[" * 100_000, '{"format": "rlsaudit-nights"}',
        _place()[:-20], _place(rounds="1"), _place(rounds=-1), _place(rounds=True), _place(rounds=10**400),
        _place(seconds=float("nan")), _place(seconds=float("inf")), _place(fresh=None), _place(role=1),
        _place(relation=None), _place(outcomes="SELECT"), _place(outcomes=[1]), _place(outcomes=None),
        _place().replace(SOURCE, "another"), _place().replace('"version": 1', '"version": 2'),
        _place().replace("[{", "[1, {"), _place().replace("[{", "{").replace("}]", "}"),
    ],
)  # fmt: skip
def test_a_broken_or_foreign_file_is_told_and_replaced(tmp_path, text) -> None:
    path = tmp_path / nights.filename(SOURCE)
    path.write_bytes(text.encode("latin-1"))
    learning, said = nights.load(tmp_path, SOURCE)
    assert learning.known == {}
    assert len(said) == 1
    assert "what earlier nights learnt is not used" in said[0]
    assert "\n" not in said[0]
    nights.save(tmp_path, SOURCE, learnt("public.t"), ["public.t"])
    assert nights.load(tmp_path, SOURCE)[1] == ()


def test_a_directory_in_its_place_is_told(tmp_path) -> None:
    (tmp_path / nights.filename(SOURCE)).mkdir()
    assert len(nights.load(tmp_path, SOURCE)[1]) == 1
    assert "lost to the next night" in nights.save(tmp_path, SOURCE, learnt("public.t"), ["public.t"])[0]


def test_a_night_that_went_nowhere_writes_nothing_new(tmp_path) -> None:
    nights.save(tmp_path, SOURCE, Learning(KNOWN), ["public.t"])
    assert nights.load(tmp_path, SOURCE)[0].known == {}


def test_a_long_night_is_kept_in_its_course(tmp_path) -> None:
    now = [0.0]
    learning, told = Learning(), []
    night = nights.Keeper(tmp_path, SOURCE, learning, frozenset({"public.t"}), clock=lambda: now[0])
    progress = night.through(lambda *given: told.append(given))
    path = tmp_path / nights.filename(SOURCE)
    now[0] = nights.EVERY
    progress("nothing is learnt yet", 0, 1)
    assert not path.exists()
    learning.offer([Neighbourhood("app", "public.t", (1,), "abc")])
    learning.visited(Neighbourhood("app", "public.t", (1,), "abc"), 150, 1.25, 1)
    now[0] += nights.EVERY - 1
    progress("a little later", 0, 1)
    assert not path.exists()
    now[0] += 1
    progress("later", 1, 1)
    assert [*nights.load(tmp_path, SOURCE)[0].known] == [("app", "public.t")]
    assert [what for what, _, _ in told] == ["nothing is learnt yet", "a little later", "later"]
    path.unlink()
    assert night.save() == ()
    assert path.exists()
    assert nights.Keeper(None, SOURCE, learning, frozenset()).save() == ()
