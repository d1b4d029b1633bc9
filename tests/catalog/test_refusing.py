"""Which trigger functions can do nothing but refuse."""

from __future__ import annotations

import pytest

from rlsaudit.catalog.refusing import only_refuses
from rlsaudit.catalog.relations import Trigger
from rlsaudit.catalog.routines import Function

REFUSING = [
    "BEGIN RAISE EXCEPTION 'no'; END",
    "\n-- for ever\nbegin\n  raise 'no' using errcode = 'check_violation', hint = 'insert instead';\nend;\n",
    "BEGIN RAISE EXCEPTION '% on %', TG_OP, TG_TABLE_NAME; RETURN NULL; END;",
    "BEGIN IF TG_OP = 'UPDATE' THEN RAISE EXCEPTION 'no'; ELSIF TG_OP = 'DELETE' THEN RAISE check_violation; END IF; RETURN OLD; END;",
    "BEGIN IF OLD.closed AND current_setting('app.import', true) IS DISTINCT FROM 'on' THEN RAISE 'no'; ELSE RETURN NEW; END IF; END",
    "BEGIN IF NEW.state NOT IN ('a', 'b') THEN IF NOT OLD.open THEN RAISE 'no'; END IF; END IF; RETURN NEW; END",
    "BEGIN IF TG_OP = 'DELETE' THEN RAISE 'no'; END IF; RETURN COALESCE(NEW, OLD); END",
]
NOT = [
    "BEGIN RETURN NEW; END",
    "BEGIN RAISE NOTICE 'no'; RETURN NEW; END",
    "BEGIN NEW.a := 1; RAISE EXCEPTION 'no'; END",
    "BEGIN NEW.a = 1; IF NEW.b THEN RAISE 'no'; END IF; RETURN NEW; END",
    "BEGIN PERFORM set_config('app.tenant_id', '1', true); RAISE EXCEPTION 'no'; END",
    "BEGIN UPDATE t SET a = 1; RAISE EXCEPTION 'no'; END",
    "DECLARE x int := f(); BEGIN RAISE EXCEPTION 'no'; END",
    "BEGIN IF f(NEW.a) THEN RAISE 'no'; END IF; RETURN NEW; END",
    "BEGIN IF \"coalesce\"(NEW.a) AND \"F\"(1) THEN RAISE 'no'; END IF; RETURN NEW; END",
    "BEGIN IF EXISTS (SELECT FROM t) THEN RAISE 'no'; END IF; RETURN NEW; END",
    "BEGIN RAISE EXCEPTION '%', set_config('a.b', '1', false); END",
    "BEGIN RAISE EXCEPTION 'no'; EXCEPTION WHEN OTHERS THEN RETURN NEW; END",
    "BEGIN RAISE EXCEPTION 'no'; END; SELECT 1",
    "BEGIN IF NEW.a THEN RAISE 'no'; RETURN NEW; END",
    "BEGIN RAISE EXCEPTION 'no'",
    "BEGIN RETURN f(NEW); RAISE 'no'; END",
    "BEGIN IF NEW.a THEN RAISE 'no'; END IF; RETURN COALESCE(f(NEW), OLD); END",
    "BEGIN RAISE EXCEPTION E'n\\'o'; PERFORM f(); END",
    "",
]  # fmt: skip


def _trigger(when: str = "") -> Trigger:
    definition = f"CREATE TRIGGER stay BEFORE UPDATE ON public.t FOR EACH ROW {when}EXECUTE FUNCTION guard()"
    return Trigger(1, "stay", 2, 3, "BEFORE", ("UPDATE",), True, "origin", (), definition)


@pytest.mark.parametrize("source", REFUSING)
def test_refuses_and_does_nothing_else(function_of, source) -> None:
    assert only_refuses(_trigger(), function_of(source))
    assert only_refuses(_trigger("WHEN ((old.closed IS DISTINCT FROM new.closed)) "), function_of(source))
    assert not only_refuses(_trigger("WHEN (f(new.a)) "), function_of(source))


@pytest.mark.parametrize("source", NOT)
def test_may_do_more_or_never_refuses(function_of, source) -> None:
    assert not only_refuses(_trigger(), function_of(source))


def test_only_in_a_language_that_is_read(function_of) -> None:
    assert not only_refuses(_trigger(), function_of(REFUSING[0], "plpython3u"))


@pytest.fixture
def function_of():
    def made(source: str, language: str = "plpgsql") -> Function:
        return Function(
            3, "public", "guard", "function", 10, language, False, False, False, "volatile", (), (), "trigger", False, (),
            source, None,
        )  # fmt: skip

    return made
