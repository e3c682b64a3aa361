"""The documentation site builds without a warning, loads nothing from the network, and says what the code does."""

import ast
import inspect
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="pip install 'perceiver-rl[docs]'")

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def build(folder: Path, config: Path = ROOT / "mkdocs.yml") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(config), "--site-dir", str(folder)]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(folder)
    assert done.returncode == 0, done.stdout
    return folder


class Page(HTMLParser):
    """What a page links to, loads, and has anchors for."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value}
        if "id" in values:
            self.anchors.add(values["id"])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        self.loads += [values[name] for name in ("src", "srcset", "data") if name in values and tag != "a"]
        if tag == "link" and values.get("rel") != "canonical" and "href" in values:
            self.loads.append(values["href"])


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}


def test_site__loads_nothing_from_the_network(site: Path, pages: dict[Path, Page]) -> None:
    assert len(pages) > 20
    for path, page in pages.items():
        assert not [each for each in page.loads if re.match(r"(https?:)?//", each)], path
    for style in site.rglob("*.css"):
        assert not re.findall(r"url\([\"']?https?://[^)]*\)|@import[^;]*//", style.read_text()), style


def test_site__has_no_dead_link(site: Path, pages: dict[Path, Page]) -> None:
    """MkDocs checks what stands in Markdown; this is what came out, the pages of files beside docs/ included."""
    for path, page in pages.items():
        for link in page.links:
            if re.match(r"[a-z]+:", link):
                continue
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name not in ("", ".") else path
            assert target.exists(), f"{path.relative_to(site)}: {link}"
            if anchor and target.suffix == ".html":
                assert anchor in pages[target].anchors, f"{path.relative_to(site)}: {link}"


def test_site__shows_the_files_that_pages_link_to(site: Path, pages: dict[Path, Page]) -> None:
    shown = (site / "source/perceiver_rl/policy/embedding.py.html").read_text()
    assert "EntityEmbedding" in shown
    assert "../source/configs/tasks_ppo.py.html" in pages[site / "tasks.html"].links or (
        "source/configs/tasks_ppo.py.html" in pages[site / "tasks.html"].links
    )
    listed = pages[site / "source/envs/tasks/index.html"].links
    assert "xor.py.html" in listed


API = {
    "entities": ["perceiver_rl.entities"],
    "nn": ["perceiver_rl.nn"],
    "policy": [f"perceiver_rl.policy.{path.stem}" for path in (ROOT / "perceiver_rl/policy").glob("[a-z]*.py")],
    "rllib": ["perceiver_rl.rllib"],
    "evaluation": ["perceiver_rl.evaluation"],
    "tensorboard": ["perceiver_rl.tensorboard"],
    "bundle": ["perceiver_rl.bundle"],
    "replay": ["perceiver_rl.replay", "perceiver_rl.scene"],
    "environments": [f"perceiver_rl.{name}" for name in ("environments", "mixture", "infos", "vector_arguments")],
    "pettingzoo": ["perceiver_rl.pettingzoo"],
    "testing": ["perceiver_rl.testing"],
    "envs": ["envs.registry", "envs.smax", "envs.magent", "envs.magent_parallel", "envs.kaz", "envs.mpe", "envs.tasks"],
    "agents": ["agents.presets", "agents.registry", "agents.scripted", "agents.hunter"],
}


@pytest.mark.parametrize("page", API)
def test_api__has_every_public_name(page: str, site: Path, pages: dict[Path, Page]) -> None:
    anchors = pages[site / f"api/{page}.html"].anchors
    missing = [f"{module}.{name}" for module in API[page] for name in public_names(module)]
    missing = [name for name in missing if name not in anchors]
    assert not missing


def test_api__shows_docstrings_in_the_house_style_as_they_are_meant(site: Path) -> None:
    for page in API:
        html = (site / f"api/{page}.html").read_text()
        assert "<blockquote" not in html, f"{page}: an example is not in a fence"
        assert "admonition" not in html, f"{page}: a paragraph became a box"
    environments = (site / "api/envs.html").read_text()
    assert "<strong>Observation:</strong> what the squad's living allies see together" in environments
    assert '<span class="gp">&gt;&gt;&gt; </span>' in environments
    assert "<code>token_dim</code>:</p>" in (site / "api/policy.html").read_text()


def test_tables__hold_no_code_blocks(site: Path) -> None:
    """A fence right after a table's last row becomes a cell of one more."""
    for file in site.rglob("*.html"):
        assert not any("<pre" in cell for cell in re.findall(r"<td[^>]*>(.*?)</td>", file.read_text(), re.DOTALL)), file


def public_names(module: str) -> list[str]:
    """What is in `__all__`, or else every class and function without an underscore; read, not imported."""
    path = ROOT / module.replace(".", "/")
    tree = ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    defined = [node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    return [name for name in defined if not name.startswith("_")]


@pytest.fixture
def small_site(tmp_path: Path) -> Path:
    """A folder with our settings and hooks whose only page is `docs/page.md`, to be written."""
    shutil.copytree(DOCS / "hooks", tmp_path / "docs/hooks", ignore=shutil.ignore_patterns("__pycache__"))
    inherit = os.path.relpath(ROOT / "mkdocs.yml", tmp_path)
    (tmp_path / "mkdocs.yml").write_text(f"INHERIT: {inherit}\nnav: [page.md]\nextra_css: []\nwatch: []\n")
    return tmp_path


def test_build__fails_on_what_is_not_there(small_site: Path) -> None:
    text = """# A

    [page](nowhere.md), [heading](#nowhere), [file](../nowhere/run.json), [docstring][perceiver_rl.nn.Nothing]
    """
    (small_site / "docs/page.md").write_text(inspect.cleandoc(text))
    done = build(small_site / "site", small_site / "mkdocs.yml")
    for missing in ("nowhere.md", "#nowhere", "../nowhere/run.json", "perceiver_rl.nn.Nothing"):
        assert f"'{missing}'" in done.stdout
    assert "Aborted with 4 warnings" in done.stdout
    assert done.returncode != 0


def test_build__fails_on_a_module_that_is_not_there(small_site: Path) -> None:
    (small_site / "docs/page.md").write_text("::: perceiver_rl.nothing\n")
    done = build(small_site / "site", small_site / "mkdocs.yml")
    assert "perceiver_rl.nothing could not be found" in done.stdout
    assert done.returncode != 0


def fences(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)


def test_front_page__says_what_the_readme_says() -> None:
    """The README's code is tested; what stands here stands there."""
    readme = (ROOT / "README.md").read_text()
    for language in ("bash", "python"):
        blocks = fences("docs/index.md", language)
        assert blocks
        assert all(block in readme for block in blocks)


@pytest.mark.parametrize("page", ["docs/concepts.md", pytest.param("docs/internals.md", marks=pytest.mark.slow)])
def test_page__prints_what_it_says(page: str, tmp_path: Path) -> None:
    blocks = fences(page, "pycon")
    assert len(blocks) >= 3
    session = tmp_path / "session.txt"
    session.write_text("\n".join(blocks))
    # A process of its own: RLlib makes torch deterministic for good. SMAX is compiled once, though it is built twice.
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, "-W", "ignore", "-m", "doctest", str(session)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | cache, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
