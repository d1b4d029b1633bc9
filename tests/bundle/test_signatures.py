"""Signatures: made without anybody to ask, and held against the key that is trusted, not against the one that signed."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlsaudit.bundle import attestation, manifest, ssh
from rlsaudit.errors import UsageError
from tests.bundle.test_verify import edit, reseal

NIGHT = "2026-11-01T02:00:00+00:00"


def test_the_right_key_is_found_and_the_wrong_one_is_not(rlsaudit, write, ssh_key) -> None:
    ours, theirs = ssh_key("ours"), ssh_key("theirs")
    directory = write("run", NIGHT, key=ours)
    said = rlsaudit("verify", directory, "--ssh-public-key", f"{ours}.pub")
    assert (said.code, said.lines[-1]) == (0, "1 run: no failure")
    said = rlsaudit("verify", directory, "--ssh-public-key", f"{theirs}.pub")
    assert said.code == 1 and f"not a signature by {theirs}.pub" in said.failures[0]


def test_allowed_signers(rlsaudit, write, ssh_key, tmp_path) -> None:
    key = ssh_key()
    directory, signers = write("run", NIGHT, key=key), tmp_path / "allowed"
    public = Path(f"{key}.pub").read_text()
    verify = ("verify", directory, "--allowed-signers", signers, "--identity")
    signers.write_text(f"nightly@example.com {public}")
    assert rlsaudit(*verify, "nightly@example.com").code == 0
    assert rlsaudit(*verify, "somebody@example.com").code == 1
    signers.write_text(f'nightly@example.com valid-before="20261101030000Z" {public}')
    assert rlsaudit(*verify, "nightly@example.com").code == 0, "it was valid when the run started"
    signers.write_text(f'nightly@example.com valid-before="20261101010000Z" {public}')
    assert rlsaudit(*verify, "nightly@example.com").code == 1


def test_ssh_keygen_alone_verifies_it(write, ssh_key, tmp_path) -> None:
    key = ssh_key()
    directory = write("run", NIGHT, key=key)
    (tmp_path / "allowed").write_text(f"nightly {Path(f'{key}.pub').read_text()}")
    command = ["ssh-keygen", "-Y", "verify", "-f", tmp_path / "allowed", "-I", "nightly", "-n", "rlsaudit"]
    command += ["-s", directory / "SHA256SUMS.sig"]
    for damaged in (b"", b"x"):
        content = (directory / "SHA256SUMS").read_bytes() + damaged
        assert subprocess.run(command, input=content, capture_output=True, check=False).returncode == (
            255 if damaged else 0
        )


def test_hashes_made_anew_do_not_fit_the_signature(rlsaudit, write, ssh_key) -> None:
    key = ssh_key()
    directory = write("run", NIGHT, key=key)
    edit(directory / "evidence.json", '"seed": ', '"seed": 9')
    reseal(directory)
    assert rlsaudit("verify", directory).code == 0, "without a key nobody can tell, and the last line says so"
    said = rlsaudit("verify", directory, "--ssh-public-key", f"{key}.pub")
    assert said.code == 1 and "SHA256SUMS.sig" in said.failures[0]


def test_a_key_and_no_signature_fails_and_no_key_is_said(rlsaudit, write, ssh_key) -> None:
    key = ssh_key()
    unsigned, signed = write("a", NIGHT), write("b", NIGHT, key=key)
    said = rlsaudit("verify", unsigned, "--ssh-public-key", f"{key}.pub")
    assert said.code == 1 and "missing" in said.failures[0]
    assert any("not signed" in line for line in rlsaudit("verify", unsigned).lines)
    assert any("but not checked" in line for line in rlsaudit("verify", signed).lines)


def test_a_signature_of_another_purpose_does_not_count(rlsaudit, write, ssh_key) -> None:
    key = ssh_key()
    directory = write("run", NIGHT)
    sums = (directory / "SHA256SUMS").read_bytes()
    made = subprocess.run(
        ["ssh-keygen", "-Y", "sign", "-f", key, "-n", "git"], input=sums, capture_output=True, check=True
    )
    (directory / "SHA256SUMS.sig").write_bytes(made.stdout)
    assert rlsaudit("verify", directory, "--ssh-public-key", f"{key}.pub").code == 1


def test_a_passphrase_is_an_error_at_once(ssh_key) -> None:
    began = time.monotonic()
    with pytest.raises(UsageError, match="passphrase"):
        ssh.signature(ssh_key("locked", "secret"), b"x")
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("content", ["", "no key", "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n"])
def test_what_is_no_ssh_key(rlsaudit, write, ssh_key, tmp_path, content) -> None:
    ssh_key()
    (tmp_path / "bad").write_text(content)
    (tmp_path / "bad").chmod(0o600)
    with pytest.raises(UsageError, match="--sign-ssh"):
        ssh.signature(tmp_path / "bad", b"x")
    assert rlsaudit("verify", write("run", NIGHT), "--ssh-public-key", tmp_path / "bad").code in (1, 2)


def test_an_agent_that_waits_for_somebody_does_not_hang(monkeypatch, ssh_key, tmp_path) -> None:
    """As ssh-add -c, or a key that wants a touch."""
    key = ssh_key()
    slow = tmp_path / "bin" / "ssh-keygen"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nsleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:/usr/bin:/bin")
    monkeypatch.setattr(ssh, "_PATIENCE", 0.5)
    with pytest.raises(UsageError, match="does the agent wait"):
        ssh.signature(key, b"x")


def test_without_ssh_keygen(monkeypatch, ssh_key, tmp_path) -> None:
    key = ssh_key()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(UsageError, match="install OpenSSH"):
        ssh.signature(key, b"x")


# Ed25519


@pytest.fixture
def pem(tmp_path: Path) -> tuple[Path, Path]:
    """Private and public half of an Ed25519 key in PEM."""
    pytest.importorskip("cryptography", reason="cryptography is not installed, so no attestation was made")
    return _pem(tmp_path, "pem")


def _pem(directory: Path, name: str) -> tuple[Path, Path]:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private, public = directory / f"{name}.key", directory / f"{name}.pub"
    form = serialization.PrivateFormat.PKCS8
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


def attest(directory: Path, key: Path, report) -> None:
    sums = (directory / "SHA256SUMS").read_text()
    (directory / manifest.ATTESTATION).write_text(attestation.made(key, sums, report))


def test_an_attestation_is_about_every_file(rlsaudit, write, pem, clean, tmp_path) -> None:
    directory = write("run", NIGHT)
    attest(directory, pem[0], clean)
    assert rlsaudit("verify", directory, "--ed25519-public-key", pem[1]).lines[-1] == "1 run: no failure"
    envelope = json.loads((directory / manifest.ATTESTATION).read_text())
    statement = json.loads(base64.b64decode(envelope["payload"]))
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    assert statement["predicate"]["result"] == "PASSED"
    assert {one["name"] for one in statement["subject"]} == set(manifest.present(directory)) - {manifest.ATTESTATION}
    _, other = _pem(tmp_path, "other")
    said = rlsaudit("verify", directory, "--ed25519-public-key", other)
    assert said.code == 1 and "not a signature by" in said.failures[0]


def test_hashes_made_anew_do_not_fit_the_attestation(rlsaudit, write, pem, clean) -> None:
    directory = write("run", NIGHT)
    attest(directory, pem[0], clean)
    edit(directory / "evidence.json", '"seed": ', '"seed": 9')
    reseal(directory)
    said = rlsaudit("verify", directory, "--ed25519-public-key", pem[1])
    assert said.code == 1 and "it speaks of other files" in said.failures[0]


@pytest.mark.parametrize("damage", ["payload", "payloadType", "sig", "nothing"])
def test_a_damaged_envelope(rlsaudit, write, pem, clean, damage) -> None:
    directory = write("run", NIGHT)
    attest(directory, pem[0], clean)
    envelope = json.loads((directory / manifest.ATTESTATION).read_text())
    if damage == "sig":
        envelope["signatures"][0]["sig"] = base64.b64encode(b"x" * 64).decode()
    elif damage == "payload":
        envelope["payload"] = base64.b64encode(b"{}").decode()
    elif damage == "payloadType":
        envelope["payloadType"] = "text/plain"
    else:
        envelope = {}
    (directory / manifest.ATTESTATION).write_text(json.dumps(envelope))
    assert rlsaudit("verify", directory, "--ed25519-public-key", pem[1]).code == 1


def test_openssl_alone_verifies_it(write, pem, clean, tmp_path) -> None:
    """What the documentation tells an auditor to type."""
    directory = write("run", NIGHT)
    attest(directory, pem[0], clean)
    envelope = json.loads((directory / manifest.ATTESTATION).read_text())
    payload = base64.b64decode(envelope["payload"])
    kind = envelope["payloadType"]
    (tmp_path / "signed").write_bytes(f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload)
    (tmp_path / "sig").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", pem[1], "-rawin", "-in", tmp_path / "signed"]
    try:
        done = subprocess.run([*command, "-sigfile", tmp_path / "sig"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    assert "Verified Successfully" in done.stdout, done.stderr


def test_without_the_library_one_line_says_how_to_get_it(monkeypatch, tmp_path) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    (tmp_path / "key").write_text("x")
    with pytest.raises(UsageError, match=r"pip install 'rlsaudit\[sign\]'"):
        attestation.check_private(tmp_path / "key")


def test_what_is_no_ed25519_key(pem, tmp_path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    locked = Ed25519PrivateKey.generate().private_bytes(*form, serialization.BestAvailableEncryption(b"secret"))
    other = generate_private_key(SECP256R1()).private_bytes(*form, serialization.NoEncryption())
    for content, what in (
        (locked, "passphrase"),
        (other, "not an Ed25519"),
        (b"x", "PEM"),
        (pem[1].read_bytes(), "PEM"),
    ):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(UsageError, match=what):
            attestation.check_private(tmp_path / "bad")
    with pytest.raises(UsageError, match="cannot be read"):
        attestation.check_private(tmp_path / "nowhere")
