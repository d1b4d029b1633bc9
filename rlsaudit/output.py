"""Writing report files: whole or not at all, readable by their owner only."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rlsaudit.errors import UsageError


def check_writable(directory: Path) -> None:
    """Raise UsageError now if reports could not be written there later; nothing is left behind but the directory."""
    try:
        existing = next(place for place in (directory, *directory.absolute().parents) if place.exists())
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UsageError(f"{directory}: the report cannot be written: {error.strerror or error}") from error


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Be the only run that writes there while the block does.  Raises UsageError when another one is."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError as error:
        raise UsageError(f"{directory}: the report cannot be written: {error.strerror or error}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{directory}: another run writes there; name another --output-dir") from None
        yield
    finally:
        os.close(descriptor)


def encoded(text: str) -> bytes:
    """The bytes that a file with this text holds."""
    return text.encode("utf-8", "backslashreplace")


def write_all(directory: Path, files: Mapping[str, str]) -> tuple[Path, ...]:
    """Write ``files`` (relative name → text) into ``directory``; each appears atomically, mode 0600.

    All texts are on disk under temporary names before the first takes its place.  Raises UsageError when the directory
    cannot be written.
    """
    staged: list[tuple[Path, Path]] = []
    try:
        for name, text in files.items():
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
            staged.append((Path(temporary), target))
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(encoded(text))
        for temporary_path, target in staged:
            temporary_path.replace(target)
    except OSError as error:
        raise UsageError(f"{directory}: the report cannot be written: {error.strerror or error}") from error
    finally:
        for temporary_path, _ in staged:
            temporary_path.unlink(missing_ok=True)
    return tuple(target for _, target in staged)


def replace_directory(directory: Path, files: Mapping[str, bytes]) -> None:
    """Put ``files`` (relative name → content) in the place of ``directory`` and all that it held; nothing for no files.

    Raises UsageError when it cannot be written.
    """
    if not files:
        return
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
        try:
            for name, content in files.items():
                target = staged / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
                target.chmod(0o600)
            old = staged.with_name(f"{staged.name}.old")
            if directory.exists():
                directory.replace(old)
            staged.replace(directory)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    except OSError as error:
        raise UsageError(f"{directory}: the report cannot be written: {error.strerror or error}") from error
