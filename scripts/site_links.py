"""A hook of MkDocs: pages from outside docs/, and links between what is inside it and what is not.

README, CONTRIBUTING and CHANGELOG become pages. A link to another file of the repository, which the site does not hold,
becomes its text; one to nothing stays, and MkDocs tells of it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = {"README.md": "readme.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Files of the repository, and what they are called in the site, in which a README would be the home page."""

LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Return the files of the site, with the pages from outside docs/."""
    for name, uri in PAGES.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - MkDocs' call
    """Return the page's Markdown with its links as the site has them."""
    source = Path(str(page.file.abs_src_path)).parent
    return LINK.sub(lambda found: _link(found, source, page.file.src_uri), markdown)


def _link(found: re.Match[str], source: Path, uri: str) -> str:
    image, text, target, anchor = found.groups(default="")
    if "://" in target:
        return found[0]
    file = (source / target).resolve()
    if file.is_relative_to(DOCS):
        inside = file.relative_to(DOCS).as_posix()
    elif file.parent == ROOT and file.name in PAGES:
        inside = PAGES[file.name]
    else:
        return text if file.exists() else found[0]
    return f"{image}[{text}]({os.path.relpath(inside, os.path.dirname(uri) or '.')}{anchor})"  # noqa: PTH120 - of an address
