"""``oscal-assessment-results.json``: the run as OSCAL assessment results, for tools of governance.

OSCAL's findings say of a control either "satisfied" or "not-satisfied".  One run can tell the second but never the
first, so a control has a finding only when exceptions were noted; of every control there is an observation that says
how far it was tested and whether exceptions were noted.  Identifiers come from the evidence: the same run, the same file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from rlsaudit import evidence
from rlsaudit.finding import Finding, PropertyResult
from rlsaudit.report import Report, format_

from ._controls import ControlResult, control_map, control_results, controls_of
from ._markdown import block, prose
from ._text import count, instant, tally, visible

_VERSION = "1.1.3"
_NAMESPACE = uuid5(NAMESPACE_URL, "urn:rlsaudit:assessment-results")
_METHODS = {"check": "EXAMINE", "prove": "EXAMINE", "probe": "TEST"}
Identify = Callable[[str], str]


@format_(
    "oscal", filename="oscal-assessment-results.json", description="OSCAL assessment results, for governance tools"
)
def oscal(report: Report) -> str:
    run = sha256(evidence.dump(report).encode()).hexdigest()

    def identify(what: str) -> str:
        return str(uuid5(_NAMESPACE, f"{run}\x1f{what}"))

    ended = _ended(report)
    document = {
        "uuid": identify("document"),
        "metadata": {
            "title": "Tenant isolation of a PostgreSQL database: results of one run of rlsaudit",
            "last-modified": ended,
            "version": run[:16],
            "oscal-version": _VERSION,
            "props": _props(
                tool_version=report.provenance.tool_version, control_map=control_map().version, evidence_sha256=run
            ),
        },
        "import-ap": {"href": f"#{identify('plan')}"},
        "results": [_result(report, identify)],
        "back-matter": {"resources": [_plan(report, identify)]},
    }
    return json.dumps({"assessment-results": document}, indent=1, ensure_ascii=False) + "\n"


def _ended(report: Report) -> str:
    return (instant(report.timing.started) + timedelta(seconds=report.timing.seconds)).isoformat(timespec="seconds")


def _plan(report: Report, identify: Identify) -> dict[str, Any]:
    run = report.provenance
    said = (
        f"The plan of the run is its configuration: checks {', '.join(run.checks)}; seed {run.seed}; "
        f"fails from {report.fail_on} on."
    )
    return {
        "uuid": identify("plan"),
        "title": "Configuration of the run",
        "description": prose(said),
        "props": _props(
            configuration_hash=run.configuration_hash, database=run.database, server_version=run.server_version,
            system_identifier=run.system_identifier,
        ),
    }  # fmt: skip


def _result(report: Report, identify: Identify) -> dict[str, Any]:
    controls = control_results(report)
    risky = [finding for finding in report.findings if finding.severity != "info"]
    cells = ", ".join(f"{state} {number}" for state, number in tally(report.cells).items() if number) or "none"
    said = (
        f"{report.sentence}. {' '.join(report.reasons)} Combinations of relation, role and command: {cells}. "
        f"{count(report.statements, 'statement')} for {count(report.tenants, 'tenant')} with synthetic rows."
    )
    observations = [
        _population(report, identify),
        *(_of_control(result, report, identify) for result in controls),
        *(_of_property(result, number, report, identify) for number, result in enumerate(report.properties)),
        *(_of_finding(finding, number, report, identify) for number, finding in enumerate(report.findings)),
    ]
    result: dict[str, Any] = {
        "uuid": identify("result"),
        "title": visible(report.sentence),
        "description": prose(" ".join(said.split())),
        "start": instant(report.timing.started).isoformat(),
        "end": _ended(report),
        "props": _props(verdict=report.verdict, exit_code=str(report.exit_code)),
        "reviewed-controls": {
            "description": "The part of each control that tenant isolation in the database speaks to.",
            "control-selections": _selections(controls),
        },
        "observations": observations,
    }
    numbers = {id(finding): number for number, finding in enumerate(report.findings)}
    if risky:
        result["risks"] = [_risk(finding, numbers[id(finding)], report, identify) for finding in risky]
    if failed := [one for one in controls if one.exceptions and _is_control(one.control.name)]:
        result["findings"] = [_finding(one, numbers, identify) for one in failed]
    if report.limits:
        result["remarks"] = prose("Not tested, by design: " + " ".join(report.limits))
    return result


def _is_control(name: str) -> bool:
    """Weaknesses and vulnerabilities are no controls that could be reviewed."""
    return not name.startswith(("CWE-", "CVE-"))


def _selections(controls: Iterable[ControlResult]) -> list[dict[str, Any]]:
    """A selection for each standard; OSCAL wants one at least."""
    by_standard: dict[str, list[str]] = {}
    for result in controls:
        if _is_control(result.control.name):
            standard, _, _ = result.control.name.rpartition(" ")
            by_standard.setdefault(standard or "other", []).append(_token(result.control.name))
    if not by_standard:
        return [{"description": "No control of the map was reviewed.", "include-controls": []}]
    return [
        {"description": prose(standard), "include-controls": [{"control-id": name} for name in dict.fromkeys(names)]}
        for standard, names in by_standard.items()
    ]


def _token(name: str) -> str:
    """``ac-3`` of ``NIST 800-53 AC-3``, as NIST's catalog has it; ``cc6.1``, ``a.8.3``."""
    last = re.sub(r"[^A-Za-z0-9._-]", "-", name.rpartition(" ")[2].lower())
    return last if last[:1].isalpha() else f"v{last}"


def _population(report: Report, identify: Identify) -> dict[str, Any]:
    said = (
        f"The catalog holds {report.population_counted} relations as a second query counts them; the evidence lists "
        f"{len(report.population)}, each with its class and what became of it."
    )
    return _observation(identify("population"), "Population", said, ["EXAMINE"], report)


def _of_control(result: ControlResult, report: Report, identify: Identify) -> dict[str, Any]:
    control = result.control
    ran = f" {count(len(result.checks), 'check')} ran: {', '.join(result.checks)}." if result.checks else ""
    tested = (
        f" {result.tested} of {count(result.tested + result.gaps, 'result')} of its properties."
        if result.tested
        else ""
    )
    gaps = f" {result.gaps} could not be tested." if result.gaps else ""
    noted = {"exceptions": len(result.exceptions), "waived exceptions": len(result.waived)}
    counts = "".join(f" {number} {what}." for what, number in noted.items() if number)
    said = f"{result.conclusion.capitalize()}.{counts}{ran}{tested}{gaps} {control.speaks_to}"
    title = f"{control.name}: {result.conclusion}"
    return _observation(identify(f"control\x1f{control.name}"), title, said, ["EXAMINE", "TEST"], report)


def _of_property(result: PropertyResult, number: int, report: Report, identify: Identify) -> dict[str, Any]:
    place = f"{result.property} as {result.role}" if result.role else result.property
    said = f"{place}: {result.outcome}, {count(result.trials, 'trial')}. {result.reason}"
    return _observation(identify(f"property\x1f{number}"), place, said, ["TEST"], report)


def _of_finding(finding: Finding, number: int, report: Report, identify: Identify) -> dict[str, Any]:
    about = _observation(
        identify(f"finding\x1f{number}"), finding.title, f"{finding.object}: {finding.message}",
        [_METHODS[finding.source]], report,
    )  # fmt: skip
    about["props"] = _props(
        severity=finding.severity, check=finding.check, fingerprint=finding.fingerprint, status=finding.status,
        age=finding.age, controls=", ".join(controls_of(finding)),
    )  # fmt: skip
    return about


def _observation(uuid: str, title: str, said: str, methods: list[str], report: Report) -> dict[str, Any]:
    return {
        "uuid": uuid,
        "title": visible(title) or "-",
        "description": prose(" ".join(said.split())),
        "methods": methods,
        "collected": _ended(report),
    }


def _risk(finding: Finding, number: int, report: Report, identify: Identify) -> dict[str, Any]:
    risk: dict[str, Any] = {
        "uuid": identify(f"risk\x1f{number}"),
        "title": visible(finding.title) or "-",
        "description": prose(f"{finding.object}: {finding.message}"),
        "statement": prose(finding.rationale or finding.title),
        "props": _props(severity=finding.severity, object=finding.object),
        "status": "deviation-approved" if finding.status == "waived" else "open",
        "related-observations": [{"observation-uuid": identify(f"finding\x1f{number}")}],
    }
    if finding.status_reason:
        factor = {"uuid": identify(f"waiver\x1f{number}"), "description": prose(finding.status_reason)}
        risk["mitigating-factors"] = [factor]
    if finding.fix:
        risk["remediations"] = [
            {
                "uuid": identify(f"fix\x1f{number}"), "lifecycle": "recommendation", "title": "SQL that closes it",
                "description": block(finding.fix),
            }
        ]  # fmt: skip
    return risk


def _finding(result: ControlResult, numbers: dict[int, int], identify: Identify) -> dict[str, Any]:
    name = result.control.name
    mine = [numbers[id(finding)] for finding in result.exceptions]
    return {
        "uuid": identify(f"noted\x1f{name}"),
        "title": f"{visible(name)}: exceptions noted",
        "description": prose(f"{count(len(mine), 'exception')} noted. {result.control.speaks_to}"),
        "target": {"type": "objective-id", "target-id": f"{_token(name)}_obj", "status": {"state": "not-satisfied"}},
        "related-observations": [
            {"observation-uuid": identify(f"control\x1f{name}")},
            *({"observation-uuid": identify(f"finding\x1f{number}")} for number in mine),
        ],
        "related-risks": [{"risk-uuid": identify(f"risk\x1f{number}")} for number in mine],
    }


def _props(**facts: str) -> list[dict[str, str]]:
    """Properties of these names; an empty one is left out, for OSCAL has no empty value."""
    told = {name.replace("_", "-"): visible(fact).strip() for name, fact in facts.items()}
    return [{"name": name, "ns": "urn:rlsaudit", "value": fact} for name, fact in told.items() if fact]
