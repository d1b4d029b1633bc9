"""The demo schemas: hardened ones are clean, as-written ones show what static analysis can see of their flaws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rlsaudit.demo import Demo, demos, path
from rlsaudit.finding import at_least

HARDENED = [pytest.param(demo, id=demo.name) for demo in demos() if demo.hardened]

# (check, object) at medium or above that the flaws of each architecture as written imply.
EXPECTED: dict[int, set[tuple[str, str]]] = {
    1: {
        ("RLS105", "policy customer_isolation on public.orders"),
        ("RLS006", "public.shipment_events_acme"),
        ("RLS003", "public.return_requests"),
        ("RLS202", "public.return_requests"),
        ("RLS301", "public.revenue_by_customer"),
    },
    2: {
        ("RLS001", "public.document_attachments"),
        ("RLS103", "policy org_isolation on public.documents"),
        ("RLS302", "public.search_documents(text)"),
    },
    3: {
        ("RLS102", "policy shared_conversations on public.conversations"),
        ("RLS102", "policy own_messages on public.messages"),
        ("RLS301", "public.inbox"),
        ("RLS203", "public.conversations"),
        ("RLS302", "public.tenant_profile(integer)"),
    },
    4: {
        ("RLS101", "policy entries_delete on desk.time_entries"),
        ("RLS301", "desk.monthly_hours"),
    },
    5: {
        ("RLS107", "policy kb_articles_isolation on public.kb_articles"),
        ("RLS102", "policy deals_admin on public.deals"),
        ("RLS302", "public.team_of(uuid)"),
    },
}


@pytest.mark.parametrize("demo", HARDENED)
def test_hardened_is_clean(demo: Demo, schema: Callable[..., Any]) -> None:
    found = schema(path(demo).read_text(encoding="utf-8"), roles=()).findings()
    loud = [(f.severity, f.check, f.object, f.message) for f in found if at_least(f.severity, "medium")]
    assert not loud, loud


@pytest.mark.parametrize("demo", [pytest.param(d, id=d.name) for d in demos() if not d.hardened])
def test_as_written_shows_its_flaws(demo: Demo, schema: Callable[..., Any]) -> None:
    found = schema(path(demo).read_text(encoding="utf-8"), roles=()).findings()
    loud = {(f.check, f.object) for f in found if at_least(f.severity, "medium")}
    assert EXPECTED[demo.number] <= loud, (sorted(EXPECTED[demo.number] - loud), sorted(loud))
