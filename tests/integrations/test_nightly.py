"""What runs each night: the script, the Kubernetes CronJob, the systemd units, and the alerts on the figures they leave."""

from __future__ import annotations

import copy
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from tests.cli.conftest import LEAKY, SOUND
from tests.integrations.conftest import ROOT, Done, broken, complaints, documents, environment, install, ran, tool

SCRIPT = ROOT / "integrations/nightly.sh"
CRONJOB = "integrations/kubernetes/cronjob.yaml"
SERVICE = "integrations/systemd/rlsaudit.service"
TIMER = "integrations/systemd/rlsaudit.timer"
RULES = "integrations/prometheus/rlsaudit.rules.yml"


def night(place: Path, **variables: str | Path) -> Done:
    """Run the script as a timer would."""
    given = {"RLSAUDIT_SOURCE": "schema.sql", "EVIDENCE_DIR": place / "evidence", "RLSAUDIT_BUDGET": "0", **variables}
    env = environment(**given) | {"PATH": f"{place}/venv/bin:{os.environ['PATH']}"}
    return ran(SCRIPT, cwd=place, env=env)


@pytest.mark.nightly
def test_two_nights_are_a_chain(tmp_path: Path) -> None:
    install(tmp_path / "venv")
    metrics = tmp_path / "metrics"
    metrics.mkdir()
    for number, text in enumerate((SOUND, LEAKY)):
        (tmp_path / "schema.sql").write_text(text)
        done = night(tmp_path, TEXTFILE_DIR=metrics)
        assert done.returncode == number, done.stderr
        (tmp_path / "evidence" / f"2026-leftover-{number}").mkdir()  # no run, and no reason to fail
    first, second = sorted(path.parent for path in (tmp_path / "evidence").glob("*/manifest.json"))
    assert json.loads((first / "manifest.json").read_text())["previous"] is None
    assert json.loads((second / "manifest.json").read_text())["previous"]
    for number in range(2):
        (tmp_path / "evidence" / f"2026-leftover-{number}").rmdir()
    verified = ran(tmp_path / "venv/bin/rlsaudit", "verify", tmp_path / "evidence")
    assert verified.returncode == 0, verified.stdout
    (figures,) = metrics.iterdir()
    assert figures.name == "rlsaudit.prom"
    assert stat.S_IMODE(figures.stat().st_mode) == 0o644
    assert "rlsaudit_exit_code 1" in figures.read_text()


def test_a_night_without_source_or_run(tmp_path: Path) -> None:
    install(tmp_path / "venv")
    assert night(tmp_path, RLSAUDIT_SOURCE="nowhere.sql").returncode == 2
    done = ran(SCRIPT, cwd=tmp_path, env=environment(EVIDENCE_DIR=tmp_path / "evidence"))
    assert done.returncode != 0
    assert "name what to scan" in done.stderr


def test_the_script_is_sound_shell() -> None:
    assert not complaints(tool("shellcheck"), SCRIPT)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", ""),
        ("schedule: ", "shedule: "),
        ("runAsNonRoot: true", "runAsNonRot: true"),
        ("emptyDir: {", "emptyDirs: {"),
        ("restartPolicy: Never", "restartPolicy: 1"),
    ],
)
def test_kubernetes_lint(tmp_path: Path, old: str, new: str) -> None:
    said = complaints(tool("kubernetes-validate"), "--strict", broken(tmp_path, CRONJOB, old, new))
    assert bool(said) == bool(old), said


def restricted(job: dict[str, Any]) -> list[str]:
    """What Kubernetes' pod security standard "restricted" and a read-only file system want, and the job does not give."""
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    own = container["securityContext"]
    wanted = {
        "concurrencyPolicy": job["spec"].get("concurrencyPolicy") == "Forbid",
        "runAsNonRoot": pod["securityContext"].get("runAsNonRoot") is True,
        "runAsUser": pod["securityContext"].get("runAsUser", 0) == 10001,
        "seccompProfile": pod["securityContext"].get("seccompProfile") == {"type": "RuntimeDefault"},
        "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
        "capabilities": own.get("capabilities") == {"drop": ["ALL"]},
        "readOnlyRootFilesystem": own.get("readOnlyRootFilesystem") is True,
        "automountServiceAccountToken": pod.get("automountServiceAccountToken") is False,
        "limits": "memory" in container["resources"].get("limits", {}),
        "/tmp": any(
            m["mountPath"] == "/tmp" and m["name"] in _kinds(pod, "emptyDir") for m in container["volumeMounts"]
        ),
        "evidence": any(
            m["mountPath"] == _variables(container)["EVIDENCE_DIR"]
            and m["name"] in _kinds(pod, "persistentVolumeClaim")
            for m in container["volumeMounts"]
        ),
    }
    return [name for name, given in wanted.items() if not given]


def _kinds(pod: dict[str, Any], kind: str) -> set[str]:
    return {volume["name"] for volume in pod["volumes"] if kind in volume}


def _variables(container: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container["env"]}


def test_the_cron_job_is_confined() -> None:
    claim, job = documents(CRONJOB)
    assert not restricted(job)
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert claim["metadata"]["name"] in [
        one.get("persistentVolumeClaim", {}).get("claimName") for one in pod["volumes"]
    ]
    assert "rlsaudit-nightly" in (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert pod["containers"][0]["command"] == ["rlsaudit-nightly"]
    loose = copy.deepcopy(job)
    inside = loose["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    inside["containers"][0]["securityContext"]["readOnlyRootFilesystem"] = False
    loose["spec"]["concurrencyPolicy"] = "Allow"
    inside["volumes"] = [one for one in inside["volumes"] if "emptyDir" not in one]
    assert restricted(loose) == ["concurrencyPolicy", "readOnlyRootFilesystem", "/tmp"]


def unit_lint(tmp_path: Path, service: Path, timer: Path) -> str:
    """What systemd says of both units, the programs that they start being there."""
    for file in (service, timer):
        text = file.read_text(encoding="utf-8").replace("/usr/local/lib/rlsaudit/nightly", str(SCRIPT))
        (tmp_path / file.name).write_text(text.replace("man:rlsaudit(1)", "https://example.com/"), encoding="utf-8")
    done = ran(tool("systemd-analyze"), "verify", tmp_path / service.name, tmp_path / timer.name)
    return (done.stdout + done.stderr).strip()


def test_systemd_lint(tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    assert not unit_lint(tmp_path, ROOT / SERVICE, ROOT / TIMER)
    for old, new in (
        ("ProtectSystem=strict", "ProtectSystem=very"),
        ("DynamicUser=yes", "DynamicUsr=yes"),
        ("ExecStart=/", "ExecStart="),
    ):
        assert unit_lint(tmp_path, broken(copies, SERVICE, old, new), ROOT / TIMER), new
    for old, new in (("OnCalendar=*-*-* 02:30:00", "OnCalendar=*-*-* 26:30"), ("[Timer]", "[Tymer]")):
        assert unit_lint(tmp_path, ROOT / SERVICE, broken(copies, TIMER, old, new)), new


def test_systemd_hardening(tmp_path: Path) -> None:
    """Below 2 of 10 on systemd's own scale; without its hardening the unit is far above it."""
    judge = (tool("systemd-analyze"), "security", "--offline=yes", "--threshold=20")
    assert not complaints(*judge, ROOT / SERVICE)
    text = (ROOT / SERVICE).read_text(encoding="utf-8")
    loose = tmp_path / "rlsaudit.service"
    loose.write_text(re.sub(r"(?m)^(Protect|Private|Restrict|SystemCall|Dynamic|Capab).*\n", "", text))
    assert complaints(*judge, loose)


def vectors(expression: Any) -> Iterator[tuple[str, dict[str, str]]]:
    """(metric, labels asked for) of every selector in a parsed expression."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield str(expression.name), {one.name: one.value for one in expression.matchers.matchers}
    for name in ("lhs", "rhs", "expr", "vector_selector"):
        if hasattr(expression, name):
            yield from vectors(getattr(expression, name))
    for argument in getattr(expression, "args", ()):
        yield from vectors(argument)


def strangers(rules: dict[str, Any], figures: str) -> list[str]:
    """Selectors in the rules that find nothing among the figures that a run writes."""
    series = [
        (name, dict(re.findall(r'(\w+)="([^"]*)"', labels)))
        for name, labels in re.findall(r"(?m)^(rlsaudit_\w+)(?:\{(.*)\})? ", figures)
    ]
    found = []
    for group in rules["groups"]:
        for rule in group["rules"]:
            asked = list(vectors(promql_parser.parse(rule["expr"])))
            assert asked, rule["expr"]
            for name, labels in asked:
                if not any(name == one and labels.items() <= other.items() for one, other in series):
                    found.append(f"{name}{labels or ''}")
    return found


@pytest.fixture(scope="module")
def figures() -> str:
    """What the format really writes, of a report with everything in it."""
    from rlsaudit.report import chosen
    from tests.reports.sample import rich

    (prometheus,) = chosen(["prometheus"])
    return prometheus.write(rich())


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("", "", []),
        ("rlsaudit_exit_code", "rlsaudit_exit", ["rlsaudit_exit"]),
        ('state="leak"', 'state="leaks"', ["rlsaudit_cells{'state': 'leaks'}"]),
    ],
)
def test_alerts_name_what_is_written(figures: str, old: str, new: str, said: list[str]) -> None:
    text = (ROOT / RULES).read_text(encoding="utf-8")
    assert strangers(yaml.safe_load(text.replace(old, new, 1)), figures) == said


def test_alerts_fire(tmp_path: Path) -> None:
    """By Prometheus' own engine: each alert fires for the figures that it is about, and for a clean run none does."""
    promtool = tool("promtool")
    assert not complaints(promtool, "check", "rules", ROOT / RULES)
    assert complaints(promtool, "check", "rules", broken(tmp_path, RULES, "> 0", "> > 0"))
    clean = {
        'rlsaudit_cells{state="leak"}': 0, 'rlsaudit_cells{state="not covered"}': 0, "rlsaudit_exit_code": 0,
        'rlsaudit_verdict{verdict="not trustworthy"}': 0, "rlsaudit_run_timestamp_seconds": 0,
        'rlsaudit_waiver_expiry_timestamp_seconds{waiver="W"}': 90 * 86400,
    }  # fmt: skip
    changes = {
        "": {},
        "RlsauditLeak": {'rlsaudit_cells{state="leak"}': 2},
        "RlsauditExceptions": {"rlsaudit_exit_code": 1},
        "RlsauditNotTrustworthy": {'rlsaudit_verdict{verdict="not trustworthy"}': 1},
        "RlsauditNotCovered": {'rlsaudit_cells{state="not covered"}': 1},
        "RlsauditWaiverEnds": {'rlsaudit_waiver_expiry_timestamp_seconds{waiver="W"}': 3 * 86400},
        "RlsauditWaiverEnded": {'rlsaudit_waiver_expiry_timestamp_seconds{waiver="W"}': 60},
        "RlsauditTooOld": {"rlsaudit_run_timestamp_seconds": -26 * 3600},
        "RlsauditAbsent": {"rlsaudit_run_timestamp_seconds": None},
    }
    alerts = [rule["alert"] for rule in documents(RULES)[0]["groups"][0]["rules"]]
    assert set(alerts) == changes.keys() - {""}
    tests = []
    for fires, change in changes.items():
        series = [
            {"series": name, "values": f"{value}x200"} for name, value in (clean | change).items() if value is not None
        ]
        asked = [{"eval_time": "2h", "alertname": one} for one in alerts if one != fires]
        tests.append({"interval": "1m", "input_series": series, "alert_rule_test": asked})
        counted = [{"expr": f'count(ALERTS{{alertname="{fires}",alertstate="firing"}})', "eval_time": "2h",
                    "exp_samples": [{"value": 1, "labels": "{}"}]}]  # fmt: skip
        if fires:
            tests[-1]["promql_expr_test"] = counted
    cases = tmp_path / "cases.yml"
    cases.write_text(yaml.safe_dump({"rule_files": [str(ROOT / RULES)], "tests": tests}))
    assert not complaints(promtool, "test", "rules", cases)
