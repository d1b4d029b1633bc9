"""An in-toto test result about the files of a run, in a DSSE envelope signed with Ed25519 (in-toto Statement v1)."""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlsaudit.bundle.manifest import ATTESTATION, SUMS, parse_sums
from rlsaudit.bundle.ssh import SignatureError
from rlsaudit.errors import UsageError
from rlsaudit.output import encoded
from rlsaudit.report import Report

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://in-toto.io/attestation/test-result/v0.1"
_PAYLOAD = "application/vnd.in-toto+json"
_SERIALIZATION, _ED25519 = "hazmat.primitives.serialization", "hazmat.primitives.asymmetric.ed25519"
_RESULTS = {"clean": "PASSED", "exceptions": "FAILED", "not trustworthy": "FAILED"}


def check_private(path: Path) -> None:
    """Raise UsageError unless ``path`` holds an Ed25519 private key that needs no passphrase."""
    _private(path)


def made(key: Path, sums: str, report: Report) -> str:
    """The text of attestation.dsse.json for the files in ``sums``.  Raises UsageError."""
    return _envelope(_private(key), _statement(sums, report))


def _statement(sums: str, report: Report) -> dict[str, object]:
    """An in-toto test result about every file of the run."""
    digests = {**parse_sums(sums), SUMS: hashlib.sha256(encoded(sums)).hexdigest()}
    made = report.provenance
    configuration: list[dict[str, object]] = [{"name": "rlsaudit", "uri": f"pkg:pypi/rlsaudit@{made.tool_version}"}]
    if made.configuration_hash:
        configuration.append({"name": "configuration", "digest": {"sha256": made.configuration_hash}})
    return {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": value}} for name, value in digests.items()],
        "predicateType": PREDICATE,
        "predicate": {"result": _RESULTS[report.verdict], "configuration": configuration},
    }


def _envelope(key: Any, statement: Mapping[str, object]) -> str:
    payload = json.dumps(statement, separators=(",", ":")).encode()
    signature = {"keyid": _key_id(key.public_key()), "sig": base64.b64encode(key.sign(_pae(payload))).decode()}
    document = {
        "payloadType": _PAYLOAD,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [signature],
    }
    return json.dumps(document, indent=1) + "\n"


def _pae(payload: bytes) -> bytes:
    """What DSSE signs: type and payload, each with its length before it."""
    return b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD), _PAYLOAD.encode(), len(payload), payload)


def check_attestation(directory: Path, public_key: Path) -> None:
    """Check attestation.dsse.json: signature, kind, and that its subjects are what SHA256SUMS says.

    Raises SignatureError, and UsageError for a key that is none.
    """
    key = _public(public_key)
    try:
        document = json.loads((directory / ATTESTATION).read_text(encoding="utf-8"))
        payload = base64.b64decode(document["payload"], validate=True)
        signatures = [base64.b64decode(one["sig"], validate=True) for one in document["signatures"]]
        kind = document["payloadType"]
    except (ValueError, KeyError, TypeError):
        raise SignatureError("not a DSSE envelope") from None
    if kind != _PAYLOAD or not any(_fits(key, one, _pae(payload)) for one in signatures):
        raise SignatureError("no signature in it is by that key over its payload")
    try:
        statement = json.loads(payload)
        subjects = {one["name"]: one["digest"]["sha256"] for one in statement["subject"]}
        kinds = (statement["_type"], statement["predicateType"])
    except (ValueError, KeyError, TypeError):
        raise SignatureError("its payload is no in-toto statement") from None
    if kinds != (STATEMENT, PREDICATE):
        raise SignatureError("its payload is not the statement of a test result")
    sums = (directory / SUMS).read_bytes()
    if subjects != {**parse_sums(sums.decode()), SUMS: hashlib.sha256(sums).hexdigest()}:
        raise SignatureError(f"it speaks of other files than {SUMS}")


def _library(name: str) -> Any:
    """A module of the optional library cryptography."""
    try:
        return importlib.import_module(f"cryptography.{name}")
    except ImportError:
        raise UsageError("Ed25519 keys need the library cryptography: pip install 'rlsaudit[sign]'") from None


def _private(path: Path) -> Any:
    content = _pem(path)
    try:
        key = _library(_SERIALIZATION).load_pem_private_key(content, password=None)
    except TypeError:
        raise UsageError(f"{path}: the key has a passphrase, and nobody is there to ask: give one without") from None
    except ValueError:
        raise UsageError(f"{path}: not a private key in PEM") from None
    if not isinstance(key, _library(_ED25519).Ed25519PrivateKey):
        raise UsageError(f"{path}: not an Ed25519 key: make one with openssl genpkey -algorithm ed25519")
    return key


def _public(path: Path) -> Any:
    content = _pem(path)
    try:
        key = _library(_SERIALIZATION).load_pem_public_key(content)
    except ValueError:
        raise UsageError(f"{path}: not a public key in PEM") from None
    if not isinstance(key, _library(_ED25519).Ed25519PublicKey):
        raise UsageError(f"{path}: not an Ed25519 key")
    return key


def _pem(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error


def _fits(key: Any, signature: bytes, content: bytes) -> bool:
    try:
        key.verify(signature, content)
    except _library("exceptions").InvalidSignature:
        return False
    return True


def _key_id(key: Any) -> str:
    library = _library(_SERIALIZATION)
    raw = key.public_bytes(library.Encoding.DER, library.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(raw).hexdigest()
