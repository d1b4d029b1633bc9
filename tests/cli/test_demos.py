"""The ten schemas that ship, end to end."""

from __future__ import annotations

import json

import pytest

from rlsaudit.demo import demos, path

# What must be found of each schema as it is usually written: (property, object).
FOUND = {
    1: {
        ("read", "sales.shipment_events"), ("read", "sales.return_requests"), ("forge", "sales.order_lines"),
        ("forge", "sales.orders"), ("read", "sales.revenue_by_customer"),
    },
    2: {("read", "app.document_attachments"), ("carryover", ""), ("closed", "app.documents"), ("read", "search_documents")},
    3: {("read", "conversations"), ("read", "messages"), ("write", "messages"), ("read", "inbox"), ("read", "tenant_profile")},
    4: {("carryover", ""), ("write", "time_entries"), ("read", "monthly_hours")},
    # Whoever sets app.role = 'admin' reads and writes deals of every tenant: one finding, of what it reads.
    5: {("write", "kb_articles"), ("read", "deals"), ("read", "team_of"), ("interference", "users")},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "demo",
    [
        pytest.param(
            one, id=one.filename.removesuffix(".sql"), marks=() if one.filename[0] in "14" else pytest.mark.nightly
        )
        for one in demos()
    ],
)
def test_demo(demo, rlsaudit, tmp_path) -> None:
    ran = rlsaudit("scan", path(demo), "--budget", "1")
    evidence = json.loads((tmp_path / "rlsaudit-report" / "evidence.json").read_text(encoding="utf-8"))
    uncovered = [cell for cell in evidence["cells"] if cell["state"] == "not covered"]
    leaks = [finding for finding in evidence["findings"] if finding["source"] == "probe"]
    assert not any("defect" in line for line in ran.said), ran.errors
    assert uncovered == []
    assert evidence["exit_code"] == ran.code
    if demo.hardened:
        assert leaks == [], [f["message"] for f in leaks]
        assert ran.code == 0, evidence["reasons"]
        return
    assert ran.code == 1, evidence["reasons"]
    assert [f["message"] for f in leaks if not f["confirmed"]] == []
    for broken, name in FOUND[demo.number]:
        near = [f for f in leaks if f["property"] == broken and name.rpartition(".")[2] in f["object"]]
        assert near, (broken, name, [(f["property"], f["object"]) for f in leaks])
    scripts = sorted(p.name for p in (tmp_path / "rlsaudit-report" / "replay").glob("F-*.sql"))
    assert scripts == sorted(f"{finding['id']}.sql" for finding in leaks)
