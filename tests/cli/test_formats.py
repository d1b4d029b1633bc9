"""Every format of one run over a live database: no password and no row of the user's in any of them."""

from __future__ import annotations

from pathlib import Path

from rlsaudit.report import formats

ROW = "canary-of-a-tenant"


def test_neither_password_nor_row_is_in_any_format(target, rlsaudit, tmp_path: Path, leaky: Path) -> None:
    with target.connect("target") as connection:
        connection.execute(leaky.read_text().encode())
        connection.execute("INSERT INTO notes VALUES (1, 1, %s)", (ROW,))
    source = f"{target.conninfo('target')} password=hunter2-canary"
    names = ",".join(formats())
    ran = rlsaudit("scan", source, "--budget", "0.2", "--format", names, extra={"PGPASSWORD": "hunter2-canary"})
    assert ran.code == 1, ran.errors
    for form in formats().values():
        text = (tmp_path / "rlsaudit-report" / form.filename).read_text(encoding="utf-8")
        assert ROW not in text, form.name
        assert form.name in ("csv", "prometheus", "github") or "public.notes" in text, form.name
    assert ROW not in ran.output + ran.errors
