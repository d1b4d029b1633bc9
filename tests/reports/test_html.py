from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from types import ModuleType

import pytest

from rlsaudit.finding import Finding
from rlsaudit.report import Report, RoleEntry, chosen


def render(report: Report) -> str:
    [form] = chosen(["html"])
    return form.write(report)


class Page(HTMLParser):
    """Elements, attributes and text of a page; what a browser would build, more or less."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style", "noscript", "section", "h1"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._open[-1] if self._open else "", []).append(data)

    def attributes(self, name: str) -> list[str | None]:
        return [attributes[name] for _, attributes in self.elements if name in attributes]


def embedded(text: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    loaded: dict[str, object] = json.loads(found[1])
    return loaded


@pytest.fixture(scope="session")
def text(rich: Report) -> str:
    return render(rich)


@pytest.fixture(params=["rich", "clean"])
def report(request: pytest.FixtureRequest) -> Report:
    made: Report = request.getfixturevalue(request.param)
    return made


def test_golden(report: Report, golden: Callable[[str, str], None], request: pytest.FixtureRequest) -> None:
    """Style and script have their own files, so the golden page leaves them out."""
    page = re.sub(r"(<style>|<script>).*?(</style>|</script>)", r"\1\2", render(report), flags=re.DOTALL)
    golden(f"{request.node.callspec.params['report']}.html", re.sub(r"sha256-[^']+", "sha256-", page))


def test_policy_names_the_hash_of_every_inline_style_and_script(text: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        bodies = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert len(bodies) == 1
        digest = base64.b64encode(hashlib.sha256(bodies[0].encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}';" in policy[1] + ";"
    assert policy[1].startswith("default-src 'none';") and "unsafe" not in policy[1]


def test_nothing_is_fetched_and_no_attribute_runs_or_styles(text: str) -> None:
    page = Page(text)
    assert not re.search(r"https?://", text)
    assert not page.attributes("style") and not page.attributes("src")
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert {tag for tag, _ in page.elements}.isdisjoint({"img", "iframe", "object", "embed", "form", "base"})
    links = [link for link in page.attributes("href") if link]
    assert links and all(link.startswith("#") or link == "data:," for link in links)


def test_hostile_names_stay_text(text: str, sample: ModuleType) -> None:
    assert "<script>alert" not in text and "<img src=x" not in text
    assert "{{7*7}}" in text, "Jinja must not evaluate what a table is called"
    assert text.isprintable() or all(c.isprintable() or c in "\n\t" for c in text)
    for mark in ("⟨U+202E⟩", "⟨U+0000⟩", "⟨U+001B⟩", "⟨U+000A⟩", "⟨U+D800⟩", "⟨U+200B⟩", "⟨U+2028⟩"):
        assert mark in text
    assert len(re.findall("<script", text)) == 2 and len(re.findall("</script", text)) == 2


def test_embedded_json_cannot_leave_its_script_element(text: str) -> None:
    body = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert body and not re.search("[<>&]", body[1])
    relations = [f"{row[0]}.{row[1]}" for row in embedded(text)["rows"]]
    assert 'public."</script><script>alert(1)</script>"' in relations


def test_every_cell_is_embedded_with_its_reason(rich: Report, text: str) -> None:
    data = embedded(text)
    cells = [cell for row in data["rows"] for cell in row[3] if cell]
    assert len(cells) == sum(cell.command != "EXECUTE" for cell in rich.cells)
    row = next(row for row in data["rows"] if row[1] == "documents")
    at = data["roles"].index("app_user") * len(data["commands"]) + data["commands"].index("UPDATE")
    state, trials, reason, links = row[3][at]
    assert (state, trials, data["reasons"][reason]) == (0, 36, "a foreign row was returned")
    assert [data["findings"][link][0] for link in links] == ["F-2"]


def test_rows_are_grouped_by_schema(rich: Report, text: str) -> None:
    schemas = [row[0] for row in embedded(text)["rows"]]
    assert len(list(dict.fromkeys(schemas))) == sum(a != b for a, b in pairwise(schemas)) + 1


def test_without_scripts_the_page_says_what_is_missing(text: str) -> None:
    note = "".join(Page(text).texts["noscript"])
    assert "Scripts are off" in note and "276 cells" in note and "evidence.json" in note
    assert "no tenant key found, so no row can be told to be foreign" in text


def test_controls_are_never_called_met(report: Report) -> None:
    page = render(report)
    section = re.search(r'<section id="controls">(.*?)</section>', page, re.DOTALL)
    assert section and not re.search(r"\b(met|satisfied|compliant|passed|effective)\b", section[1], re.IGNORECASE)


def controls(page: str) -> dict[str, str]:
    section = re.search(r'<section id="controls">(.*?)</section>', page, re.DOTALL)
    assert section
    return dict(re.findall(r'<span class="id">(.*?) <span class="stt \w+">(.*?)</span>', section[1]))


def test_control_results_follow_open_findings(text: str) -> None:
    told = controls(text)
    assert told["SOC 2 CC6.1"] == "Exceptions noted"
    assert told["SOC 2 CC6.3"] == "Exception, waived"
    assert told["SOC 2 CC6.7"] == "No exceptions noted", "a check ran for it and found nothing"
    assert told["SOC 2 CC7.2"] == "No exceptions noted", "information is no exception"
    assert told["SOC 2 CC8.1"] == "No exceptions noted", "the detector and the tenants' own rows are evidence for it"
    assert told["NIST 800-53 SC-4"] == "Partly tested, no exceptions noted", "carryover was not tested for one role"
    assert "SOC 2 CC6.2" not in told, "no check ran for it"


def test_an_untrustworthy_run_concludes_nothing(clean: Report) -> None:
    page = render(replace(clean, verdict="not trustworthy", exit_code=3, reasons=("The detector missed a leak.",)))
    assert "NOT TRUSTWORTHY" in page
    assert set(controls(page).values()) == {"No conclusion"}


def test_a_crashed_check_leaves_its_controls_without_conclusion(clean: Report) -> None:
    crash = Finding(
        check="RLS002",
        source="check",
        title="Check crashed",
        severity="high",
        object="check RLS002",
        message="x",
    )
    assert controls(render(replace(clean, findings=(crash,))))["SOC 2 CC6.7"] == "No conclusion"


def test_missing_run_level_properties_are_not_covered(clean: Report) -> None:
    page = render(replace(clean, properties=()))
    section = re.search(r'<section id="properties">(.*?)</section>', page, re.DOTALL)
    assert section and section[1].count(">not covered</span>") == 4


def test_population_that_does_not_reconcile_is_said_in_red(clean: Report) -> None:
    assert '<span class="red">3 in the catalog, 2 in this report' in render(replace(clean, population_counted=3))


def test_a_run_without_cells_claims_nothing(clean: Report) -> None:
    page = render(replace(clean, cells=()))
    assert "No table, command and role combination was tested" in page and "No cell was tested" in page


def test_sql_that_does_not_show_whole_has_no_copy_button(text: str) -> None:
    block = re.search(r'id="F-6".*?</details>', text, re.DOTALL)
    assert block and "data-copy" not in block[0] and "take it from evidence.json" in block[0]
    block = re.search(r'id="F-2".*?</details>', text, re.DOTALL)
    assert block and block[0].count("data-copy") == 3


def test_anchors_are_unique_whatever_findings_are_called(rich: Report) -> None:
    findings = tuple(replace(f, id="verdict") for f in rich.findings)
    ids = Page(render(replace(rich, findings=findings))).attributes("id")
    assert len(ids) == len(set(ids))


def edge_classes(page: str) -> list[str]:
    figure = re.search(r'<figure class="graph".*?</figure>', page, re.DOTALL)
    assert figure
    return re.findall(r'<path class="((?:inherit|set)(?: hot)?)"', figure[0])


def role(name: str, inherits: tuple[str, ...] = (), may_set: tuple[str, ...] = (), **changes: object) -> RoleEntry:
    plain = RoleEntry(name, False, False, False, False, 0, inherits, may_set)
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_attributes_are_reached_by_set_role_only(clean: Report) -> None:
    roles = (role("app", inherits=("boss",)), role("boss", bypassrls=True))
    assert edge_classes(render(replace(clean, roles=roles))) == ["inherit"], "BYPASSRLS is not inherited"
    roles = (
        role("app", may_set=("mid", "boss")),
        role("mid", may_set=("boss",)),
        role("boss", bypassrls=True),
    )
    assert edge_classes(render(replace(clean, roles=roles))) == ["set hot", "set hot"], "the closure draws as two steps"


def test_rights_of_an_owner_are_inherited(clean: Report) -> None:
    roles = (role("app", inherits=("owner",)), role("owner", exempt="owner without FORCE", owns=3))
    page = render(replace(clean, roles=roles))
    assert edge_classes(page) == ["inherit hot"] and "app inherits from owner" in page
    roles = (role("app", inherits=("mid",)), role("mid", inherits=("owner",)), *roles[1:])
    assert edge_classes(render(replace(clean, roles=roles))) == ["inherit hot", "inherit hot"]


def test_a_cycle_of_roles_in_a_damaged_file_still_draws(clean: Report) -> None:
    roles = (role("a", may_set=("b",)), role("b", may_set=("a",)), role("c", may_set=("c", "gone")))
    assert edge_classes(render(replace(clean, roles=roles))) == ["set", "set"]


@pytest.mark.slow
def test_five_thousand_relations_make_a_small_page(large: Report) -> None:
    page = render(large)
    assert len(page) < 4_000_000 and len(embedded(page)["rows"]) == 5000
