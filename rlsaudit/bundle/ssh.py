"""SSH signatures over SHA256SUMS, made and checked by ``ssh-keygen -Y``; nothing waits for a passphrase, or a touch."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rlsaudit.bundle.manifest import SSH_SIGNATURE, SUMS
from rlsaudit.errors import UsageError

NAMESPACE = "rlsaudit"
_PATIENCE = 60.0
"""Seconds for ssh-keygen, which is done in a blink unless an agent asks somebody."""


class SignatureError(Exception):
    """A signature does not fit; the text says why."""


def signature(key: Path, content: bytes) -> str:
    """The armoured signature of ``content``; ``key`` may be the public half of a key in an agent.  Raises UsageError."""
    if not key.is_file():
        raise UsageError(f"--sign-ssh {key}: there is no such file")
    code, out, err = _ssh_keygen(("sign", "-f", str(key)), content)
    if code != 0:
        raise UsageError(
            f"--sign-ssh {key}: ssh-keygen could not sign with it: {_last(err)}; a key with a passphrase has to be in "
            "ssh-agent, and its public half given here"
        )
    return out.decode("ascii")


def _ssh_keygen(arguments: Sequence[str], content: bytes, **environment: str) -> tuple[int, bytes, str]:
    """Exit code, output and errors of ``ssh-keygen -Y``; in a session of its own, so that it cannot ask a terminal."""
    kept = {
        name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_ASKPASS")
    }
    command = ("ssh-keygen", "-Y", arguments[0], "-n", NAMESPACE, *arguments[1:])
    try:
        done = subprocess.run(
            command, input=content, capture_output=True, timeout=_PATIENCE, check=False, start_new_session=True,
            env={**kept, "SSH_ASKPASS_REQUIRE": "never", "LC_ALL": "C", **environment},
        )  # fmt: skip
    except FileNotFoundError:
        raise UsageError("ssh-keygen was not found: install OpenSSH 8.1 or later") from None
    except subprocess.TimeoutExpired:
        raise UsageError(
            f"ssh-keygen gave no answer within {_PATIENCE:.0f} s: does the agent wait for somebody?"
        ) from None
    return done.returncode, done.stdout, done.stderr.decode(errors="replace")


def _last(errors: str) -> str:
    said = [line.strip() for line in errors.splitlines() if line.strip() and not line.startswith(("Signing ", "@@@"))]
    return said[-1].rstrip(".").removeprefix("Enter passphrase: ") if said else "it did not say why"


def check_ssh(directory: Path, signers: Path, identity: str, started: datetime) -> None:
    """Check SHA256SUMS.sig against a file of allowed signers, whose keys must have been valid when the run started.

    Raises SignatureError, and UsageError when there is no ssh-keygen.
    """
    arguments = (
        "verify", "-f", str(signers), "-I", identity, "-s", str(directory / SSH_SIGNATURE),
        "-O", f"verify-time={started.astimezone(UTC):%Y%m%d%H%M%S}",
    )  # fmt: skip
    code, _, err = _ssh_keygen(arguments, (directory / SUMS).read_bytes(), TZ="UTC")
    if code != 0:
        raise SignatureError(_last(err))


def check_ssh_key(directory: Path, public_key: Path, started: datetime) -> None:
    """Check SHA256SUMS.sig against one public key.  Raises as ``check_ssh``; UsageError for what is no public key."""
    try:
        words = public_key.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{public_key}: cannot be read: {error}") from error
    if len(words) < 2 or words[0].startswith("-"):
        raise UsageError(f"{public_key}: not an SSH public key, such as ssh-keygen writes into a .pub file")
    with tempfile.TemporaryDirectory() as place:
        signers = Path(place) / "allowed_signers"
        signers.write_text(f"{NAMESPACE} {words[0]} {words[1]}\n", encoding="utf-8")
        check_ssh(directory, signers, NAMESPACE, started)
