"""A hook of mkdocs: links out of docs/ to files of the repository, which the site has not, become plain text."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

_LINK = re.compile(r"\[([^\]]*)\]\((\.\.?/[^)#\s]*)[^)]*\)")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """``[text](../Dockerfile)`` → ``text``, where the file exists outside docs/: others stay, and fail the build."""
    root = Path(config.docs_dir).resolve()
    folder = Path(page.file.abs_src_path or root).resolve().parent

    def plain(link: re.Match[str]) -> str:
        target = (folder / link[2]).resolve()
        return link[1] if target.exists() and not target.is_relative_to(root) else link[0]

    return _LINK.sub(plain, markdown)
