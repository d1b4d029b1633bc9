"""Each check's own examples: bad fires, its fix silences it, good is silent."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from rlsaudit.check import Check, Example, registry
from rlsaudit.finding import at_least

CASES = [
    pytest.param(one, example, id=f"{one.id}-{number}")
    for one in registry()
    for number, example in enumerate(one.examples, start=1)
]


@pytest.mark.parametrize(("one", "example"), CASES)
def test_bad_fires_and_its_fix_silences_it(one: Check, example: Example, schema: Callable[..., object]) -> None:
    made = schema(example.setup + example.bad)
    found = [f for f in made.of(one.id) if one.severity == "info" or f.severity != "info"]
    assert found, [(f.check, f.object, f.message) for f in made.findings()]
    assert all("crashed" not in f.title for f in found)
    for finding in found:
        assert finding.fix, finding.message
        try:
            made.execute(finding.fix)
        except psycopg.errors.FeatureNotSupported as error:
            if "extension" not in str(error):
                raise
            pytest.skip(f"this server comes without it: {error}")
    after = [(f.object, f.message) for f in made.of(one.id) if f.fingerprint in {g.fingerprint for g in found}]
    assert not after, after


@pytest.mark.parametrize(("one", "example"), CASES)
def test_good_is_silent(one: Check, example: Example, schema: Callable[..., object]) -> None:
    made = schema(example.setup + example.good)
    loud = [f for f in made.of(one.id) if at_least(f.severity, "medium") or one.severity == "info"]
    assert not loud, [(f.severity, f.object, f.message) for f in loud]
