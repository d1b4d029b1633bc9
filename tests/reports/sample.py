"""Hand-made reports for tests: a rich one with hostile names, a clean one, and a very large one."""

from __future__ import annotations

from dataclasses import replace

from rlsaudit.finding import Cell, Finding, Property, PropertyResult, State
from rlsaudit.report import (
    BaselineEntry,
    HistoryEntry,
    PolicyEntry,
    PopulationEntry,
    Provenance,
    Report,
    RoleEntry,
    StandardEntry,
    Timing,
    WaiverEntry,
)

HOSTILE = (
    'public."</script><script>alert(1)</script>"',
    'public.""">""<img src=x onerror=alert(2)>"',
    'public."{{7*7}} {% raw %}"',
    'public."user\u202egnp.exe"',
    'public."nul\x00esc\x1b[31mred\x07"',
    'public."line\nbreak\u2028\u200b"',
    'public."]]> &amp; <!-- --> \ud800"',
)
"""Relation names that try to break out of HTML, JavaScript, Jinja, XML or a terminal."""

COMMANDS = ("SELECT", "INSERT", "UPDATE", "DELETE")
NO_PRIVILEGE: tuple[State, int, str] = ("no privilege", 0, "the role holds no such privilege")


def provenance() -> Provenance:
    return Provenance(
        tool_version="0.1.0",
        source="service=acme_prod",
        command=("rlsaudit", "scan", "service=acme_prod", "--seed", "7", "--format", "html,junit"),
        configuration_hash="sha256:41b7c0ffee90cd",
        server_version="17.2",
        scratch_version="18.6",
        system_identifier="7301848842",
        database="acme_prod",
        session_role="rlsaudit_reader",
        session_exempt=False,
        catalog_fingerprint="sha256:b8d0beef13f4",
        seed=7,
        runner_clock="2026-11-21T02:00:07+00:00",
        server_clock="2026-11-21T02:00:07.040+00:00",
        python_version="3.11.9",
        checks=("RLS001", "RLS002", "RLS104", "RLS201", "RLS301", "RLS501"),
        started_by="nightly-compliance, build 8841",
    )


def timing() -> Timing:
    phases = (("load", 0.31), ("audit", 0.42), ("prove", 1.2), ("probe", 21.9), ("report", 0.3))
    return Timing("2026-11-21T02:00:07+00:00", 24.13, phases)


def _relation(relation: str, why: str, outcome: str = "isolated", **changes: str) -> PopulationEntry:
    made = PopulationEntry(relation, "table", "tenant", why, "owner_app", outcome)  # type: ignore[arg-type]
    return replace(made, **changes)  # type: ignore[arg-type]


def _population() -> tuple[PopulationEntry, ...]:
    key = "column account_id"
    return (
        _relation("public.accounts", "tenant registry: its key is the tenant", class_="registry"),
        _relation("public.users", "column account_id → accounts.id"),
        _relation("public.memberships", key, class_="membership"),
        _relation("public.projects", key),
        _relation("public.documents", key, "leak"),
        _relation("public.document_versions", "via document_id → documents (1 foreign key away)"),
        _relation("public.comments", "via document_id → documents (1 foreign key away)"),
        _relation("public.invoices", key),
        _relation("public.webhook_deliveries", key, "waived", owner="app_worker"),
        _relation("billing.plans", "read by every tenant, no key", "no app privilege", class_="global"),
        _relation("billing.usage_events", key, kind="partitioned table"),
        _relation("billing.usage_events_2026_11", "partition of billing.usage_events", "leak"),
        _relation("reporting.v_invoice_totals", "reads public.invoices", "leak", kind="view", owner="postgres"),
        _relation(
            "reporting.mv_revenue",
            "no key column",
            "not tenant data",
            kind="materialized view",
            class_="global",
        ),
        _relation("ops.job_queue", "no tenant key found; payload is jsonb", "not covered", class_="unclassified"),
        _relation("ops.schema_migrations", "name of a migration tool", "not tenant data", class_="infrastructure"),
        *(_relation(name, key) for name in HOSTILE),
    )


def _row(relation: str, role: str, *states: tuple[State, int, str]) -> tuple[Cell, ...]:
    cells = zip(COMMANDS, states, strict=True)
    return tuple(Cell(relation, role, command, *state) for command, state in cells)


def _cells(population: tuple[PopulationEntry, ...]) -> tuple[Cell, ...]:
    proven: tuple[State, int, str] = (
        "proven",
        12,
        "the policy implies account_id = current tenant; 12 statements agree",
    )
    held: tuple[State, int, str] = (
        "held",
        48,
        "48 statements showed nothing; the policy has a subquery, so no proof",
    )
    leak: tuple[State, int, str] = ("leak", 36, "a foreign row was returned")
    gap: tuple[State, int, str] = (
        "not covered",
        0,
        "no tenant key found, so no row can be told to be foreign",
    )
    waived: tuple[State, int, str] = ("waived", 12, "accepted until 2026-11-30")
    rows: dict[tuple[str, str], tuple[tuple[State, int, str], ...]] = {
        ("public.documents", "app_user"): (proven, held, leak, held),
        ("public.webhook_deliveries", "support_agent"): (waived, *[NO_PRIVILEGE] * 3),
        ("billing.usage_events_2026_11", "app_readonly"): (leak, *[NO_PRIVILEGE] * 3),
        ("reporting.v_invoice_totals", "app_user"): (leak, *[NO_PRIVILEGE] * 3),
        ("reporting.v_invoice_totals", "app_readonly"): (held, *[NO_PRIVILEGE] * 3),
        ("ops.job_queue", "app_user"): (gap, gap, gap, gap),
        (HOSTILE[4], "app_user"): (
            proven,
            ("held", 48, "</script> \x00\x1b[2J\u202e was tried"),
            proven,
            proven,
        ),
    }
    cells: list[Cell] = []
    for entry in population:
        for role in ("app_user", "app_readonly", "support_agent"):
            default = [NO_PRIVILEGE] * 4
            if entry.outcome in ("isolated", "leak", "waived") and not entry.relation.startswith("reporting"):
                full, read = [proven, held, proven, proven], [held, *[NO_PRIVILEGE] * 3]
                default = full if role == "app_user" else read if role == "app_readonly" else default
            cells += _row(entry.relation, role, *rows.get((entry.relation, role), tuple(default)))
    return tuple(cells)


REPLAY = """\\set ON_ERROR_STOP on
BEGIN;
SET LOCAL ROLE app_user;
SELECT set_config('app.account_id', 'tenant-b', true);
-- expected no row of tenant A, got 2
SELECT account_id, count(*) FROM reporting.v_invoice_totals
 WHERE account_id IS NOT DISTINCT FROM 'tenant-a'
 GROUP BY account_id;
ROLLBACK;
"""

ACCESS = ("SOC 2 CC6.1", "ISO 27001 A.8.3", "NIST 800-53 AC-3")


def _findings() -> tuple[Finding, ...]:
    def probe(
        number: int,
        check: str,
        title: str,
        relation: str,
        command: str,
        role: str,
        message: str,
        prop: Property,
        fix: str,
        confirmed: bool = True,
    ) -> Finding:
        return Finding(
            id=f"F-{number}",
            check=check,
            source="probe",
            title=title,
            severity="critical",
            object=relation,
            relation=relation,
            command=command,
            role=role,
            message=message,
            property=prop,
            fix=fix,
            attack="BEGIN;\nSELECT set_config('app.account_id', '1', true);\nSELECT * FROM public.documents;\nROLLBACK;",
            replay=REPLAY,
            confirmed=confirmed,
            standards=ACCESS,
        )

    view, documents, part = "reporting.v_invoice_totals", "public.documents", "billing.usage_events_2026_11"
    return (
        probe(
            1,
            "PROBE-READ",
            "View returns every tenant’s rows",
            view,
            "SELECT",
            "app_user",
            "Bound to tenant B, app_user read 2 rows of tenant A through "
            "reporting.v_invoice_totals. The view runs with its "
            "owner’s rights, and the owner postgres is a superuser, so the policy "
            "on public.invoices never applies.",
            "read",
            f"ALTER VIEW {view} SET (security_invoker = true);",
        ),
        probe(
            2,
            "PROBE-FORGE",
            "A row can be moved into another tenant",
            documents,
            "UPDATE",
            "app_user",
            "Bound to tenant B, app_user set account_id of its own document to "
            "tenant A. Policy documents_upd checks the old "
            "row, and its WITH CHECK is true.",
            "forge",
            "ALTER POLICY documents_upd ON public.documents\n  WITH CHECK (account_id = app.current_account());",
        ),
        probe(
            3,
            "PROBE-READ",
            "Partition can be read around its parent’s policy",
            part,
            "SELECT",
            "app_readonly",
            "app_readonly read rows of tenant A in billing.usage_events_2026_11, which has no policy of its own.",
            "read",
            f"ALTER TABLE {part} ENABLE ROW LEVEL SECURITY;\nREVOKE SELECT ON {part} FROM app_readonly;",
            False,
        ),
        Finding(
            id="F-4",
            check="RLS301",
            source="check",
            title="View runs with the rights of an exempt owner",
            severity="high",
            object=view,
            relation=view,
            command="SELECT",
            message=("reporting.v_invoice_totals belongs to postgres, a superuser, and lacks security_invoker."),
            rationale=("A view checks privileges and row security as its owner unless security_invoker is set."),
            fix=f"ALTER VIEW {view} SET (security_invoker = true);",
            standards=(*ACCESS, "CWE-284"),
        ),
        Finding(
            id="F-5",
            check="RLS201",
            source="check",
            title="Role may become exempt from row security",
            severity="high",
            object="role support_agent",
            role="support_agent",
            status="waived",
            message="support_agent may SET ROLE support_admin, which has BYPASSRLS.",
            rationale="BYPASSRLS is not inherited, but whoever may SET ROLE to it has it.",
            fix="REVOKE support_admin FROM support_agent;",
            standards=("SOC 2 CC6.3", "NIST 800-53 AC-6"),
        ),
        Finding(
            id="F-6",
            check="RLS501",
            source="check",
            title="Unique constraint spans tenants",
            severity="medium",
            object=f"{HOSTILE[0]}",
            relation=HOSTILE[0],
            message=(
                f"UNIQUE on {HOSTILE[0]} lets a tenant learn of another’s value {{{{7*7}}}} by an error \u202etxt.exe"
            ),
            rationale=("A duplicate key error tells that the value exists.\nThe key should begin with the tenant."),
            fix=f"ALTER TABLE {HOSTILE[3]} DROP CONSTRAINT u; -- ' \x1b]0;title\x07",
            standards=("CWE-203",),
        ),
        Finding(
            id="F-7",
            check="PROBE-CLOSED",
            source="probe",
            title="A session without context sees rows",
            severity="critical",
            object="public.projects",
            relation="public.projects",
            role="app_user",
            property="closed",
            message="With app.account_id set to the empty string app_user read 3 rows of public.projects.",
            fix=(
                "ALTER POLICY p ON public.projects USING (account_id = "
                "NULLIF(current_setting('app.account_id', true), ''));"
            ),
            attack="BEGIN;\nSELECT set_config('app.account_id', '1', true);\nSELECT * FROM public.documents;\nROLLBACK;",
            replay=REPLAY,
            confirmed=True,
            standards=ACCESS,
        ),
        Finding(
            id="F-8",
            check="RLS104",
            source="check",
            title="Policy calls current_setting per row",
            severity="info",
            object="policy p on public.projects",
            relation="public.projects",
            message="current_setting is called once for each row.",
            standards=("SOC 2 CC7.2",),
        ),
    )


def _roles() -> tuple[RoleEntry, ...]:
    return (
        RoleEntry(
            "api_pool",
            True,
            False,
            False,
            False,
            0,
            ("app_user",),
            ("app_user", "app_readonly"),
            "login of the pool",
        ),
        RoleEntry("app_user", False, True, False, False, 0, (), (), "named in policies"),
        RoleEntry("app_readonly", False, True, False, False, 0, (), (), "named in policies"),
        RoleEntry(
            "support_agent",
            True,
            True,
            False,
            False,
            0,
            ("app_readonly",),
            ("support_admin",),
            "holds SELECT",
        ),
        RoleEntry("support_admin", False, False, False, True, 0, (), (), "", "BYPASSRLS"),
        RoleEntry("owner_app", False, False, False, False, 14, (), (), "owner", "owner without FORCE"),
        RoleEntry("migrator", True, False, False, False, 0, ("owner_app",), ("owner_app",), "runs migrations"),
        RoleEntry("ev\u202eil</text><script>", True, False, False, False, 0, (), (), "{{7*7}}"),
    )


def function_cells() -> tuple[Cell, ...]:
    """Functions, one of them under a hostile name."""
    return (
        Cell("app.account_total(bigint)", "app_user", "EXECUTE", "held", 24, "what it returned holds no other value"),
        Cell("app.close_account(uuid, text)", "app_user", "EXECUTE", "not covered", 32, "every call failed: not yours"),
        Cell("app.search(text)", "app_user", "EXECUTE", "leak", 18, "read"),
        Cell(f'{HOSTILE[0]}("<b>\u202e")', "ev\u202eil", "EXECUTE", "held", 2, "it runs with its caller's rights"),
    )


def rich() -> Report:
    """Every state, every severity, every outcome, and names that attack the page."""
    population = _population()
    account = "(account_id = app.current_account())"
    return Report(
        verdict="exceptions",
        exit_code=1,
        sentence=f"Tenant data is reachable across tenants in 3 of {len(population)} relations",
        reasons=(
            "4 open leaks are at or above medium.",
            "4 cells are not covered.",
            "The waiver of F-5 expires in 9 days.",
        ),
        population=population,
        population_counted=len(population),
        cells=(*_cells(population), *function_cells()),
        findings=_findings(),
        properties=(
            PropertyResult("closed", "app_user", "leak", 96, "3 rows seen with the setting empty"),
            PropertyResult("carryover", "app_user", "held", 40, "commit, rollback, DISCARD ALL, prepared plan, cursor"),
            PropertyResult("carryover", "support_agent", "not covered", 0, "the role cannot log in"),
            PropertyResult("interference", "app_user", "held", 210, "three worlds gave the same rows, tags and errors"),
            PropertyResult("alive", "app_user", "held", 52, "own rows were read and changed in every relation"),
            PropertyResult("detector", "", "held", 6, "6 of 6 planted leaks were found"),
        ),
        policies=(
            PolicyEntry("public.documents", "documents_upd", "UPDATE", True, ("app_user",), account, "true"),
            PolicyEntry("public.documents", "documents_sel", "SELECT", True, ("PUBLIC",), account, None),
            PolicyEntry("public.invoices", "invoices_all", "ALL", True, ("app_user",), account, None),
            PolicyEntry(
                "public.invoices",
                "context_set",
                "ALL",
                False,
                ("PUBLIC",),
                "(app.current_account() IS NOT NULL)",
                None,
            ),
            PolicyEntry(HOSTILE[1], 'p"><img src=x>', "ALL", True, ("ev\u202eil",), "(k = '</script>\u202e')", None),
        ),
        roles=_roles(),
        context=(
            "SELECT set_config('app.account_id', :tenant, true)",
            "from policies, which read app.account_id",
        ),
        notes=("Created the login role rlsaudit_app_user in the scratch server.",),
        limits=(
            "Timing is not measured.",
            "Logical replication, backups and other databases were not tested.",
        ),
        statements=2604,
        tenants=3,
        provenance=provenance(),
        timing=timing(),
        waivers=(
            WaiverEntry(
                "waiver",
                "in force",
                "RLS201 on role support_agent",
                "moved by the platform team in December",
                "security lead",
                "2026-10-01",
                "2026-11-30",
                "SEC-412",
                findings=("F-5",),
            ),
            WaiverEntry(
                "waiver",
                "expired",
                f"PROBE-READ on {HOSTILE[0]}",
                HOSTILE[3],
                HOSTILE[5],
                "2026-01-01",
                "2026-02-01",
                HOSTILE[1],
                accept_risk=True,
                findings=("F-1",),
            ),
            WaiverEntry("allow-list", "stale", "RLS301 on public.v_*", "sums only"),
        ),
        history=(
            HistoryEntry("2026-11-18T02:00:04+00:00", "clean", 0, 0, 1),
            HistoryEntry("2026-11-19T02:00:05+00:00", "not trustworthy", 0, 84, 2),
            HistoryEntry("2026-11-20T02:00:09+00:00", "exceptions", 1, 9, 4),
        ),
        baseline=BaselineEntry(
            "2026-11-20/evidence.json",
            "2026-11-20T02:00:09+00:00",
            "exceptions",
            "ab" * 32,
            3,
            1,
            (("high", "A view shows all rows", "public.v_totals"), ("low", "x", HOSTILE[1])),
        ),
        standards=(
            StandardEntry("SOC 2 CC6.1", ("RLS001", "RLS301")),
            StandardEntry("SOC 2 CC6.3", ("RLS201",)),
            StandardEntry("SOC 2 CC6.7", ("RLS002",)),
            StandardEntry("CWE-203", ("RLS501",)),
        ),
    )


def clean() -> Report:
    """Nothing found, nothing left out."""
    population = (
        PopulationEntry("public.accounts", "table", "registry", "one row per tenant", "owner_app", "isolated"),
        PopulationEntry("public.notes", "table", "tenant", "column account_id", "owner_app", "isolated"),
    )
    proven: tuple[State, int, str] = (
        "proven",
        12,
        "the policy implies account_id = current tenant; 12 statements agree",
    )
    held: tuple[State, int, str] = ("held", 48, "48 statements showed nothing")
    names: tuple[Property, ...] = ("closed", "carryover", "interference", "alive", "detector")
    return replace(
        rich(),
        verdict="clean",
        exit_code=0,
        sentence="No way across tenants was found in 2 relations",
        reasons=(),
        population=population,
        population_counted=2,
        cells=(
            *_row("public.accounts", "app_user", proven, NO_PRIVILEGE, NO_PRIVILEGE, NO_PRIVILEGE),
            *_row("public.notes", "app_user", proven, held, proven, held),
        ),
        findings=(),
        properties=tuple(PropertyResult(name, "app_user", "held", 40, "as it should be") for name in names),
        policies=(
            PolicyEntry("public.notes", "p", "ALL", True, ("app_user",), "(account_id = app.current_account())", None),
        ),
        roles=(RoleEntry("app_user", True, True, False, False, 0, (), (), "named in policies"),),
        notes=(),
        waivers=(),
        baseline=None,
        history=(),
    )


def large(relations: int = 5000, roles: int = 4) -> Report:
    """Many relations × ``roles`` × 4 commands, mostly held."""
    population = tuple(
        PopulationEntry(f"s{n % 20:02}.table_{n:05}", "table", "tenant", "column tenant_id", "owner_app", "isolated")
        for n in range(relations)
    )
    cells = tuple(
        Cell(
            entry.relation,
            f"role_{role}",
            command,
            "held" if (number + role) % 3 else "proven",
            48,
            "nothing was seen",
        )
        for number, entry in enumerate(population)
        for role in range(roles)
        for command in COMMANDS
    )
    return replace(clean(), population=population, population_counted=relations, cells=cells)
