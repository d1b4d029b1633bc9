"""The page in a real browser, from file://, under its own content security policy."""

from __future__ import annotations

import re
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from rlsaudit.report import Report, chosen

Chromium = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def page(rich: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    [form] = chosen(["html"])
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(form.write(rich), encoding="utf-8")
    return path


def first_pixel(png: bytes) -> tuple[int, ...]:
    """Upper left pixel: no filter changes it, because it has no neighbours."""
    data, at = b"", 8
    while at < len(png):
        size, kind = struct.unpack(">I4s", png[at : at + 8])
        data += png[at + 8 : at + 8 + size] if kind == b"IDAT" else b""
        at += size + 12
    return tuple(zlib.decompress(data)[1:4])


def dom(chromium: Chromium, address: str) -> str:
    done = chromium("--dump-dom", address)
    assert "Content Security Policy" not in done.stderr, done.stderr
    assert "Uncaught" not in done.stderr, done.stderr
    return done.stdout


def test_matrix_is_drawn_and_hostile_names_are_inert(chromium: Chromium, page: Path) -> None:
    text = dom(chromium, page.as_uri() + "?theme=dark")
    assert 'data-theme="dark"' in text
    assert ">20 of 23 relations<" in text and "Show 3 without any privilege" in text
    cells = re.findall(r'<button class="cell (s-\w+)"', text)
    assert len(cells) == 20 * 12
    assert {"s-leak", "s-gap", "s-waived", "s-held", "s-proven", "s-nopriv"} == set(cells)
    assert (
        'aria-label="UPDATE on public.documents as app_user: leak, 36 statements. a foreign row was returned"' in text
    )
    assert "<img" not in text and "<script>alert" not in text


def test_a_deep_link_opens_the_cell(chromium: Chromium, page: Path) -> None:
    text = dom(chromium, page.as_uri() + "#cell=ops.job_queue/app_user/DELETE")
    dialog = re.search(r'<dialog id="dlg"[^>]* open="?.*?</dialog>', text, re.DOTALL)
    assert dialog, "the dialog is shut"
    assert "DELETE on ops.job_queue as app_user" in dialog[0] and "no tenant key found" in dialog[0]


def test_a_deep_link_filters_the_matrix(chromium: Chromium, page: Path) -> None:
    text = dom(chromium, page.as_uri() + "#filter=leak/usage")
    assert ">1 of 23 relations<" in text
    assert len(re.findall(r'<button class="cell', text)) == 12
    assert re.search(r'data-f="0" aria-pressed="true"', text)


def test_a_link_opens_its_finding(chromium: Chromium, page: Path) -> None:
    assert re.search(r'<details class="f panel" id="F-6" open', dom(chromium, page.as_uri() + "#F-6"))


def test_light_and_dark_differ_and_narrow_screens_work(chromium: Chromium, page: Path, tmp_path: Path) -> None:
    shots = {}
    for name, query, size in (
        ("light", "?theme=light", "1440,900"),
        ("dark", "?theme=dark", "1440,900"),
        ("narrow", "", "400,900"),
    ):
        shot = tmp_path / f"{name}.png"
        chromium(f"--screenshot={shot}", f"--window-size={size}", page.as_uri() + query)
        shots[name] = shot.read_bytes()
        width, _ = struct.unpack(">II", shots[name][16:24])
        assert width == int(size.split(",")[0])
    assert first_pixel(shots["light"]) == (255, 255, 255)
    assert max(first_pixel(shots["dark"])) < 60


@pytest.mark.slow
def test_a_large_matrix_draws_only_what_is_seen(chromium: Chromium, large: Report, tmp_path: Path) -> None:
    [form] = chosen(["html"])
    path = tmp_path / "large.html"
    path.write_text(form.write(large), encoding="utf-8")
    text = dom(chromium, path.as_uri())
    assert ">5,000 of 5,000 relations<" in text
    assert 16 <= len(re.findall(r'<button class="cell', text)) < 2000
