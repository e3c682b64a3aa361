"""Links from a page to files beside `docs/`, such as `../configs/smax_2s3z_ppo.py`, on the site.

Where the repository is browsed such links work by themselves. A site has only what is in `docs/`, so each file that a page
links to becomes a page of its own that shows it, and each folder one that lists it. A link to nothing is a warning, and so
an error of the build. The project's README is the site's front page.
"""

from __future__ import annotations

import os
import posixpath
import re
from dataclasses import dataclass
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

SHOWN = "source"
"""Folder of the site for files from beside `docs/`."""
MAX_BYTES = 20_000
"""Longer files are named, not shown: they are records of runs."""

LINK = re.compile(r"(?<=\]\()(?P<path>[^)#\s:]+)(?=[)#])")
LANGUAGES = {".py": "python", ".json": "json"}


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add a page for each file that some page links to, and for the files that these link to in turn."""
    places = Places.of(config)
    waiting = [
        path for file in files.documentation_pages() for path in places.outside(file.content_string, places.source(file))
    ]
    done = {places.root / "README.md"}
    while waiting:
        path = waiting.pop()
        if path in done or not path.exists():
            continue
        done.add(path)
        content = places.listing(path) if path.is_dir() else places.text(path)
        files.append(File.generated(config, places.uri(path), content=content, inclusion=InclusionLevel.NOT_IN_NAV))
        if path.is_dir():
            waiting += [child for child in _children(path) if _is_shown(child)]
        elif path.suffix == ".md":
            waiting += places.outside(content, path)
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to files beside `docs/` lead to the pages that show them."""
    places = Places.of(config)
    source = places.source(page.file)
    if source.suffix != ".md":
        return markdown

    def leads(link: re.Match[str]) -> str:
        path = _resolve(link["path"], source)
        if not path.exists() or (path.is_relative_to(places.docs) and source.is_relative_to(places.docs)):
            return link["path"]  # MkDocs' own, which it finds or warns of
        return posixpath.relpath(places.uri(path), posixpath.dirname(page.file.src_uri))

    return LINK.sub(leads, markdown)


@dataclass(frozen=True)
class Places:
    """Where things are, in the repository and on the site."""

    root: Path
    """The repository."""
    docs: Path
    """Its pages."""

    @classmethod
    def of(cls, config: MkDocsConfig) -> Places:
        """Those of a configuration file in the repository's root."""
        return cls(Path(config.config_file_path).parent, Path(config.docs_dir))

    def source(self, file: File) -> Path:
        """The file in the repository that a page is made of."""
        if file.src_uri.startswith(f"{SHOWN}/"):
            return self.root / file.src_uri.removeprefix(f"{SHOWN}/").removesuffix(".md")
        return self.docs / file.src_uri

    def uri(self, path: Path) -> str:
        """Where the page of a file stands among the site's pages."""
        if path.is_relative_to(self.docs):
            return path.relative_to(self.docs).as_posix()
        if path == self.root / "README.md":
            return "index.md"
        return f"{SHOWN}/{path.relative_to(self.root).as_posix()}{'/index' if path.is_dir() else ''}.md"

    def outside(self, markdown: str, source: Path) -> list[Path]:
        """What the links of a page lead to, as far as it is in the repository beside `docs/`."""
        paths = [_resolve(link["path"], source) for link in LINK.finditer(markdown)]
        return [path for path in paths if path.is_relative_to(self.root) and not path.is_relative_to(self.docs)]

    def listing(self, folder: Path) -> str:
        """A page that lists a folder."""
        rows = []
        for child in _children(folder):
            target = posixpath.relpath(self.uri(child), posixpath.dirname(self.uri(folder)))
            name = f"`{child.name}{'/' if child.is_dir() else ''}`"
            rows.append(f"- [{name}]({target})" if _is_shown(child) else f"- {name}, {child.stat().st_size:,} bytes")
        return self.page(folder, "\n".join(rows))

    def text(self, path: Path) -> str:
        """A page that shows a file."""
        text = path.read_text()
        if path.suffix == ".md":
            return text
        return self.page(path, f"````{LANGUAGES.get(path.suffix, 'text')}\n{text.rstrip()}\n````")

    def page(self, path: Path, body: str) -> str:
        """A page that is found by links alone."""
        name = path.relative_to(self.root).as_posix()
        return f"---\ntitle: {name}\nsearch: {{exclude: true}}\nhide: [navigation, toc]\n---\n\n# `{name}`\n\n{body}\n"


def _resolve(link: str, source: Path) -> Path:
    return Path(os.path.normpath(source.parent / link))


def _children(folder: Path) -> list[Path]:
    """What is in a folder, without caches and hidden files; folders first."""
    children = [child for child in folder.iterdir() if not child.name.startswith((".", "__pycache__"))]
    return sorted(children, key=lambda child: (child.is_file(), child.name))


def _is_shown(path: Path) -> bool:
    return path.is_dir() or path.stat().st_size <= MAX_BYTES
