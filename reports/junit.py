"""``TEST-rlsaudit.xml``: the run as JUnit, for CI systems.

One suite for each relation, with a case for each cell, passes included: ``UPDATE as app_user [write]``.
A leak is a failure; a cell that was not covered is an error (it fails the run, nobody takes it for a pass); a
waived one is skipped.  Cells without privilege have nothing to test: one passing case for each relation lists
them.  The suite ``audit`` has a case for each check and object, and one for each check that found nothing.
The suite ``isolation contract`` has the properties of the whole run and the verdict, so that the file is red
exactly when the exit code is not 0.

The whole text stands in the element's body, because GitLab shows no attribute.  Names hold no counts and no
times, so a case keeps its identity from run to run.  The form is Jenkins' strict one: a case has no ``file``,
no ``line`` and no properties.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree as ET

from rlsaudit.finding import Cell, Finding, PropertyResult, concerns
from rlsaudit.report import Report, format_

from ._text import fails, index_findings, lines, property_of, visible

Kind = Literal["pass", "failure", "error", "skipped"]


@dataclass(frozen=True, slots=True)
class Case:
    classname: str
    name: str
    kind: Kind
    summary: str
    text: str


@format_("junit", filename="TEST-rlsaudit.xml", description="JUnit, for the test view of a CI system")
def junit(report: Report) -> str:
    suites = [("isolation contract", _contract(report)), ("audit", _audit(report)), *_relations(report)]
    root = ET.Element("testsuites", name="rlsaudit")
    totals = dict.fromkeys(("tests", "failures", "errors"), 0)
    for name, cases in suites:
        suite = _suite(name, cases, report.timing.started)
        for key in totals:
            totals[key] += int(suite.attrib[key])
        root.append(suite)
    root.attrib |= {key: str(number) for key, number in totals.items()} | {"time": f"{report.timing.seconds:.3f}"}
    ET.indent(root, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(name: str, cases: Sequence[Case], started: str) -> ET.Element:
    kinds = [case.kind for case in cases]
    suite = ET.Element("testsuite", name=visible(name), tests=str(len(cases)))
    suite.attrib |= {
        "failures": str(kinds.count("failure")),
        "errors": str(kinds.count("error")),
        "skipped": str(kinds.count("skipped")),
        "time": "0.000",
        "timestamp": visible(started),
    }
    for case in cases:
        element = ET.SubElement(
            suite, "testcase", classname=visible(case.classname), name=visible(case.name), time="0.000"
        )
        if case.kind == "pass":
            if case.text:
                ET.SubElement(element, "system-out").text = lines(case.text)
            continue
        result = ET.SubElement(element, case.kind, message=visible(case.summary))
        if case.kind != "skipped":
            result.set("type", case.kind)
        result.text = lines(case.text)
    return suite


def _relations(report: Report) -> list[tuple[str, list[Case]]]:
    findings = index_findings([finding for finding in report.findings if finding.source != "check"])
    groups: dict[str, list[Cell]] = {}
    for cell in report.cells:
        groups.setdefault(cell.relation, []).append(cell)
    suites = []
    for relation, cells in groups.items():
        cases = [
            _cell(cell, findings.get(relation, ()), failed=report.exit_code != 0)
            for cell in cells
            if cell.state != "no privilege"
        ]
        if idle := [f"{cell.command} as {cell.role}" for cell in cells if cell.state == "no privilege"]:
            cases.append(Case(relation, "commands without privilege", "pass", "", "no privilege: " + ", ".join(idle)))
        suites.append((relation, cases))
    return suites


def _cell(cell: Cell, findings: Sequence[Finding], *, failed: bool) -> Case:
    name = f"{cell.command} as {cell.role} [{property_of(cell)}]"
    what = f"{cell.state}, {cell.trials} statements: {cell.reason}"
    if cell.state in ("held", "proven"):
        return Case(cell.relation, name, "pass", "", what)
    if cell.state == "waived":
        return Case(cell.relation, name, "skipped", f"waived: {cell.reason}", what)
    about = [finding for finding in findings if concerns(finding, cell)]
    if cell.age or not failed:
        text = "\n\n".join([what, *map(_whole, about)])
        said = "carried over from the baseline" if cell.age else "fails nothing"
        return Case(cell.relation, name, "skipped", f"{said}: {cell.state}", text)
    if cell.state == "not covered":
        return Case(cell.relation, name, "error", f"not covered: {cell.reason}", f"not covered: {cell.reason}")
    summary = about[0].title if about else cell.reason
    return Case(cell.relation, name, "failure", summary, "\n\n".join([what, *map(_whole, about)]))


def _whole(finding: Finding) -> str:
    """The finding as text: everything a reader needs who sees nothing but this."""
    place = (
        f"{finding.command} as {finding.role}" if finding.command and finding.role else finding.command or finding.role
    )
    where = f"{finding.object} ({place})" if place else finding.object
    parts = [
        f"{finding.id} {finding.severity}[{finding.check}] {where}: {finding.title}",
        finding.message,
        finding.rationale,
        f"Defined at {finding.file}:{finding.line}" if finding.file else "",
        f"Fingerprint: {finding.fingerprint}"
        + (f"  Standards: {', '.join(finding.standards)}" if finding.standards else ""),
        f"Fix:\n{finding.fix.rstrip()}" if finding.fix else "",
        f"Attack:\n{finding.attack.rstrip()}" if finding.attack else "",
        f"Replay: rlsaudit replay replay/{finding.id}.sql" if finding.replay else "",
    ]
    return "\n".join(part for part in parts if part).strip()


def _audit(report: Report) -> list[Case]:
    """A case for each check and place; a check that found nothing passes as a whole."""
    places: dict[tuple[str, str], list[Finding]] = {}
    for finding in report.findings:
        if finding.source == "check":
            places.setdefault((finding.check, _place(finding)), []).append(finding)
    cases = [_found(check, place, findings, report.fail_on) for (check, place), findings in places.items()]
    hit = {check for check, _ in places}
    cases += [Case(check, "no finding", "pass", "", "") for check in report.provenance.checks if check not in hit]
    return cases


def _place(finding: Finding) -> str:
    relation = f" of {finding.relation}" if finding.relation not in ("", finding.object) else ""
    role = f" as {finding.role}" if finding.role and finding.role not in finding.object else ""
    return f"{finding.object}{relation}{f' {finding.command}' if finding.command else ''}{role}"


def _found(classname: str, name: str, findings: Sequence[Finding], fail_on: str) -> Case:
    text = "\n\n".join(map(_whole, findings))
    if failing := [finding for finding in findings if fails(finding, fail_on)]:
        return Case(classname, name, "failure", failing[0].title, text)
    if all(finding.status == "waived" for finding in findings):
        return Case(classname, name, "skipped", f"waived: {findings[0].title}", text)
    if any(finding.age == "carried" for finding in findings):
        return Case(classname, name, "skipped", f"carried over from the baseline: {findings[0].title}", text)
    return Case(classname, name, "pass", "", f"Below {fail_on}:\n{text}")


def _contract(report: Report) -> list[Case]:
    """Properties of the run, findings that belong to no leaking cell, and the verdict."""
    suite = "isolation contract"
    shown = _shown_in_cells(report)
    loose = [finding for finding in report.findings if finding.source != "check" and id(finding) not in shown]
    cases = [_property(suite, result, loose, failed=report.exit_code != 0) for result in report.properties]
    told = {(result.property, result.role) for result in report.properties if result.outcome == "leak"}
    rest: dict[str, list[Finding]] = {}
    for finding in loose:
        if not any(_belongs(finding, property_, role) for property_, role in told):
            rest.setdefault(f"{finding.check}: {_place(finding)} [{finding.property}]", []).append(finding)
    cases += [_found(suite, name, findings, report.fail_on) for name, findings in rest.items()]
    kind: Kind = "pass" if report.exit_code == 0 else "failure" if report.exit_code == 1 else "error"
    why = "\n".join([report.sentence, *report.reasons, f"Exit code {report.exit_code}."])
    return [*cases, Case(suite, "verdict", kind, report.sentence, why)]


def _property(suite: str, result: PropertyResult, loose: Iterable[Finding], *, failed: bool) -> Case:
    role = f" as {result.role}" if result.role else ""
    name = f"{result.property}{role} [{result.property}]"
    what = f"{result.outcome}, {result.trials} trials: {result.reason}"
    about = [_whole(finding) for finding in loose if _belongs(finding, result.property, result.role)]
    if result.outcome == "held":
        return Case(suite, name, "pass", "", what)
    if result.outcome == "waived":
        return Case(suite, name, "skipped", f"waived: {result.reason}", "\n\n".join([what, *about]))
    if result.outcome == "not covered":
        return Case(suite, name, "error" if failed else "skipped", f"not covered: {result.reason}", what)
    if result.age or not failed:
        said = "carried over from the baseline" if result.age else "fails nothing"
        return Case(suite, name, "skipped", said, "\n\n".join([what, *about]))
    return Case(suite, name, "failure", result.reason, "\n\n".join([what, *about]))


def _belongs(finding: Finding, property_: str, role: str) -> bool:
    return finding.property == property_ and (not role or finding.role in ("", role))


def _shown_in_cells(report: Report) -> set[int]:
    findings = index_findings([finding for finding in report.findings if finding.source != "check"])
    return set(_ids(report.cells, findings))


def _ids(cells: Iterable[Cell], findings: dict[str, list[Finding]]) -> Iterator[int]:
    for cell in cells:
        if cell.state == "leak":
            yield from (id(finding) for finding in findings.get(cell.relation, ()) if concerns(finding, cell))
