"""The two sides of a comparison as they were read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from filecmp import cmp
from pathlib import Path

from rlsaudit.catalog.cluster import Server
from rlsaudit.catalog.model import Catalog
from rlsaudit.diff.informed import informed
from rlsaudit.diff.objects import Side
from rlsaudit.errors import RlsauditError
from rlsaudit.opening import Opened, open_source
from rlsaudit.options import Options, Progress
from rlsaudit.places import within
from rlsaudit.source import git
from rlsaudit.source.open import Kind, detect, sql_files
from rlsaudit.tenancy.model import Tenancy

_NO_SERVER = Server("", 0, "", "", "", False, False, False, "")


@dataclass(frozen=True)
class Read:
    """One side."""

    name: str
    """BASE or HEAD."""
    given: str
    """As the user wrote it."""
    options: Options
    """With the source that stands for it."""
    kind: Kind
    opened: Opened
    side: Side
    files: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Name below the source → how the file is shown, and its text; empty for what is no SQL."""


@dataclass(frozen=True)
class Source:
    """A side before it is opened."""

    name: str
    given: str
    options: Options
    kind: Kind
    tree: git.Checkout | None

    @property
    def root(self) -> Path:
        """What names of files are shown from."""
        return self.tree.root if self.tree else Path.cwd()

    def shown(self, error: RlsauditError) -> RlsauditError:
        """The error with the side that it is about, and files as the repository has them."""
        said = str(error)
        if self.tree is not None:
            said = said.replace(f"{self.tree.root}/", f"{self.given.rpartition(':')[0]}:")
        return type(error)(f"{self.name}: {said}")


@contextmanager
def located(name: str, given: str, options: Options) -> Iterator[Source]:
    """A SOURCE or ``git:REF:path``; the files of a commit are there while the block runs.  Raises UsageError."""
    with ExitStack() as stack:
        try:
            tree = stack.enter_context(git.checkout(given)) if given.startswith(git.PREFIX) else None
            options, kind = _for(options, tree.source if tree else given)
        except RlsauditError as error:
            raise type(error)(f"{name}: {error}") from error
        yield Source(name, given, options, kind, tree)


def alike(base: Source, head: Source) -> bool:
    """Whether both are directories with the same files, byte for byte."""
    if base.kind != "directory" or head.kind != "directory":
        return False
    names = [
        sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
        for root in (Path(base.options.source), Path(head.options.source))
    ]
    pairs = ((Path(base.options.source) / name, Path(head.options.source) / name) for name in names[0])
    return names[0] == names[1] and all(cmp(one, other, shallow=False) for one, other in pairs)


@contextmanager
def read(source: Source, progress: Progress) -> Iterator[Read]:
    """Open a side; its scratch server runs while the block does.

    BASE may be empty.  Raises UsageError and NotTrustworthy as ``open_source`` does, with the name of the side.
    """
    with ExitStack() as stack:
        try:
            if source.name == "BASE" and _empty(source.kind, source.options.source):
                opened, files = Opened(Catalog(_NO_SERVER), Tenancy(), (), None, None, None), {}
            else:
                opened = stack.enter_context(open_source(source.options, progress))
                files = _files(source.options, source.kind, source.root)
        except RlsauditError as error:
            raise source.shown(error) from error
        opened = replace(opened, places=within(opened.places, source.root))
        side = Side(opened.catalog, opened.tenancy)
        yield Read(source.name, source.given, source.options, source.kind, opened, side, files)


def told_by(base: Read, head: Read) -> Read:
    """HEAD with what BASE knew of tenants."""
    tenancy, declared = informed(base.side, head.side, head.options.declared, head.options.preset)
    if tenancy is head.opened.tenancy:
        return head
    scratch = None if head.opened.scratch_tenancy is None else tenancy
    opened = replace(head.opened, tenancy=tenancy, scratch_tenancy=scratch)
    options = replace(head.options, declared=declared)
    return replace(head, options=options, opened=opened, side=Side(opened.catalog, tenancy))


def _for(options: Options, source: str) -> tuple[Options, Kind]:
    """The options that this kind of source takes: of two sides one may be live."""
    kind = detect(source)
    return replace(
        options,
        source=source,
        probing=False,
        preset="" if kind in ("snapshot", "dsn") else options.preset,
        scratch_on_target=options.scratch_on_target and kind == "dsn",
    ), kind


def _empty(kind: Kind, source: str) -> bool:
    """Whether there is no SQL yet: an empty file, or a directory without files."""
    path = Path(source)
    if kind == "directory":
        return not any(one.is_file() for one in path.rglob("*"))
    try:
        return kind == "file" and not path.read_bytes().strip()
    except OSError:
        return False


def _files(options: Options, kind: Kind, root: Path) -> dict[str, tuple[str, str]]:
    if kind not in ("file", "directory"):
        return {}
    source, found = Path(options.source), {}
    for file in sql_files(options.source, options.stdin):
        if file.path is not None:
            shown = file.path.relative_to(root) if file.path.is_relative_to(root) else file.path
            key = file.path.relative_to(source).as_posix() if kind == "directory" else "the file"
            found[key] = (shown.as_posix(), file.text)
    return found
