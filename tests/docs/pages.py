"""The pages that people read, and what they point to: links, headings, files, modules and names."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.test_architecture import ROOT, modules

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
"""README and its neighbours, and every page of docs/."""

_FENCE = re.compile(r"^(```|~~~).*?^\1", flags=re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_HEADING = re.compile(r"^#+ +(.*)$", flags=re.MULTILINE)


def prose(text: str) -> str:
    """A page without its blocks of code."""
    return _FENCE.sub("", text)


def links(text: str) -> list[str]:
    """The targets of a page's links and pictures."""
    return _LINK.findall(prose(text))


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and Python-Markdown both make them of plain headings."""
    headings = (re.sub(r"[^\w\- ]", "", heading.lower()).strip() for heading in _HEADING.findall(prose(text)))
    return {re.sub(r"\s", "-", heading) for heading in headings}


def code(text: str) -> list[str]:
    """What a page sets in backticks."""
    return _CODE.findall(prose(text))


def broken_link(page: Path, target: str) -> str | None:
    """Why a link of a page leads nowhere; None where it leads somewhere, or out of the project."""
    if re.match(r"[a-z]+:", target):
        return None
    file, _, anchor = target.partition("#")
    path = (page.parent / file).resolve() if file else page
    if not path.exists():
        return f"{target}: there is no {file}"
    if anchor and anchor not in anchors(path.read_text()):
        return f"{target}: {path.name} has no heading for #{anchor}"
    return None


_FOLDERS = ("benchmarks", "docs", "models", "pushforward", "service", "tests")
_PATH = re.compile(rf"(?<![\w/.{{-])(?:{'|'.join(_FOLDERS)})/(?:[\w./-]*[\w/])?(?![\w{{*])")
_NAME = re.compile(r"(?<![\w/.-])(?:benchmarks|models|pushforward|service|tests)(?:\.[A-Za-z_]\w*)+(?![\w/])")


def mentioned(text: str) -> list[str]:
    """The paths and dotted names of this project that a page holds, its blocks of code included."""
    return [found[0] for pattern in (_PATH, _NAME) for found in pattern.finditer(text)]


def missing(mention: str) -> str | None:
    """Why a path or a dotted name of this project does not exist; None where it does."""
    if "/" in mention:
        return None if (ROOT / mention).exists() else f"there is no {mention}"
    return _missing_name(mention)


def _missing_name(name: str) -> str | None:
    known = modules() | {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for folder in ("benchmarks", "tests")
        for path in (ROOT / folder).rglob("*.py")
    }
    if name in known:
        return None
    module, _, rest = name, "", ""
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module, rest = ".".join(parts[:cut]), ".".join(parts[cut:])
        if module in known:
            break
    else:
        return f"there is no module {name}"
    body: list[ast.stmt] = ast.parse(known[module].read_text()).body
    for part in rest.split("."):
        found = next((node for node in body if part in _defined(node)), None)
        if found is None:
            return f"{module} has no {rest}"
        body = found.body if isinstance(found, ast.ClassDef) else []
    return None


def _defined(node: ast.stmt) -> set[str]:
    """The names that a statement defines, an `import` at the top of a module included."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return {node.name}
    if isinstance(node, ast.Assign):
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return {node.target.id}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name for alias in node.names}
    if isinstance(node, ast.If):  # `if TYPE_CHECKING:`
        return set().union(*(_defined(inner) for inner in node.body))
    return set()
