from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files

import pytest
from jsonschema import Draft202012Validator

from rlsaudit.errors import UsageError
from rlsaudit.evidence import dump, parse
from rlsaudit.report import Report, chosen, formats


@pytest.fixture(params=["rich", "clean"])
def report(request: pytest.FixtureRequest) -> Report:
    made: Report = request.getfixturevalue(request.param)
    return made


def schema() -> dict[str, object]:
    loaded: dict[str, object] = json.loads(
        files("rlsaudit.reports").joinpath("evidence.schema.json").read_text("utf-8")
    )
    return loaded


def test_what_is_written_is_read_back_equal(report: Report) -> None:
    assert parse(dump(report)) == report
    assert dump(parse(dump(report))) == dump(report)


def test_evidence_fits_its_schema(report: Report) -> None:
    Draft202012Validator.check_schema(schema())
    Draft202012Validator(schema()).validate(json.loads(dump(report)))


def test_schema_names_every_key_that_is_written(rich: Report) -> None:
    document, rules = json.loads(dump(rich)), schema()
    assert list(rules["properties"]) == list(document)
    parts = {"population": "relation", "cells": "cell", "findings": "finding", "properties": "property",
             "policies": "policy", "roles": "role", "standards": "standard"}  # fmt: skip
    for key, name in parts.items():
        assert set(rules["$defs"][name]["properties"]) == set(document[key][0]), key
    for key in ("provenance", "timing"):
        assert set(rules["$defs"][key]["properties"]) == set(document[key])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("verdict", "fine"),
        ("exit_code", 7),
        ("cells", [{"relation": "a"}]),
        ("schema_version", "2.0"),
        ("statements", -1),
    ],
)
def test_schema_refuses(rich: Report, key: str, value: object) -> None:
    document = json.loads(dump(rich)) | {key: value}
    assert not Draft202012Validator(schema()).is_valid(document)


def test_keys_that_other_programs_rely_on(rich: Report) -> None:
    document = json.loads(dump(rich))
    assert {
        "schema_version",
        "verdict",
        "exit_code",
        "population",
        "cells",
        "findings",
        "waivers",
        "provenance",
        "timing",
    } <= set(document)
    assert {"relation", "kind", "class", "why", "owner", "outcome"} == set(document["population"][0])
    assert {"relation", "role", "command", "state", "trials", "reason"} <= set(document["cells"][0])
    assert {
        "id", "check", "source", "property", "severity", "relation", "object", "command", "role",
        "message", "fix", "replay",         "fingerprint", "status",
    } <= set(document["findings"][0])  # fmt: skip


def test_text_is_valid_utf8_without_characters_that_do_not_show(rich: Report) -> None:
    text = dump(rich)
    text.encode("utf-8")
    assert all(c.isprintable() or c == "\n" for c in text)
    assert "’" in text, "letters of other scripts stay readable"


def test_golden(report: Report, golden: Callable[[str, str], None], request: pytest.FixtureRequest) -> None:
    golden(f"{request.node.callspec.params['report']}.json", dump(report))


def damaged(report: Report, path: str, value: object) -> str:
    document = json.loads(dump(report))
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    inner = document
    for part in way:
        inner = inner[part]
    if value is KeyError:
        del inner[last]
    else:
        inner[last] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema_version", "2.0", "schema_version '2.0' is not read"),
        ("schema_version", KeyError, "not an evidence file"),
        ("verdict", "fine", "verdict: expected one of 'clean', 'exceptions', 'not trustworthy', got 'fine'"),
        ("timing", KeyError, "timing is missing"),
        ("cells.3.state", "ok", "cells[3].state: expected one of"),
        ("cells.3.trials", "12", "cells[3].trials: expected int, got '12'"),
        ("cells.3.trials", True, "cells[3].trials: expected int, got True"),
        ("findings.0.message", "nothing\x1b[2J", None),
        ("findings.0.severity", "fatal", "findings[0].severity"),
        ("findings.0.object", "public.other", "findings[0].fingerprint does not fit"),
        ("findings.0.fingerprint", KeyError, "findings[0].fingerprint does not fit"),
        ("timing.phases.0", ["load"], "timing.phases[0]: expected 2 items"),
        ("population.0", "x\x1b[2J" * 90, "population[0]: expected an object, got 'x\\x1b[2J"),
        ("policies.0.using", 3, "policies[0].using: expected str, got 3"),
    ],
)
def test_a_damaged_file_is_one_clear_line(rich: Report, path: str, value: object, message: str | None) -> None:
    text = damaged(rich, path, value)
    if message is None:
        assert parse(text).findings[0].message == value
        return
    with pytest.raises(UsageError) as caught:
        parse(text, "out/evidence.json")
    line = str(caught.value)
    assert line.startswith("out/evidence.json: ") and message in line
    assert "\n" not in line and line.isprintable() and len(line) < 300


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "3", '{"schema_version": 1}', "[" * 200_000, '{"a": NaN}', "\ud800"]
)
def test_what_is_no_evidence_is_one_clear_line(text: str) -> None:
    with pytest.raises(UsageError, match=r"^evidence\.json: [^\n]*\Z"):
        parse(text)


def test_a_later_minor_version_may_have_more_keys(rich: Report) -> None:
    document = json.loads(dump(rich)) | {"schema_version": "1.7", "novelty": {}}
    document["cells"][0]["novelty"] = 1
    assert parse(json.dumps(document)) == rich


def test_optional_keys_may_be_absent(rich: Report) -> None:
    document = json.loads(dump(rich))
    for key in ("fail_on", "waivers", "standards"):
        del document[key]
    assert parse(json.dumps(document)) == replace(rich, waivers=(), standards=())


def test_formats_are_found_and_unknown_ones_refused() -> None:
    assert {"html", "json", "junit"} <= set(formats())
    assert chosen(["json"])[0].filename == "evidence.json"
    with pytest.raises(UsageError, match="unknown format 'pdf'"):
        chosen(["pdf"])


@pytest.mark.parametrize("name", ["html", "json", "junit"])
def test_rendering_again_from_the_file_gives_the_same_bytes(report: Report, name: str) -> None:
    [form] = chosen([name])
    again = parse(dump(report))
    assert form.write(again).encode() == form.write(report).encode()
    assert not re.search(r"0x[0-9a-f]{8,}", form.write(report)), "an object address would change from run to run"
