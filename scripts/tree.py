"""Writes the tree of files in docs/architecture.md, each with the first sentence of its docstring. `--check` compares.

Run by `make tree`; a test runs the check.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- tree: begin (make tree) -->\n", "<!-- tree: end -->"
FOLDERS = ("duckling_data", "duckling_train", "scripts")
COMMENTED = (".cpp", ".h")
SHOWN = (".py", ".sh", ".txt", ".json", ".ipynb", ".html", *COMMENTED)


def summary(path: Path) -> str:
    """Return the first sentence of a Python file's docstring, or of C++'s first comment; nothing for another file."""
    if path.suffix not in (".py", *COMMENTED):
        return ""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(text)) or ""
    else:
        text = "".join(line.removeprefix("//") for line in text.splitlines() if line.startswith("//"))
    first = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=\.)\s", first)[0].rstrip(".")


def lines(folder: Path, depth: int = 0) -> Iterator[str]:
    """Yield the tree's lines below a folder: its files, then its folders, in order of their names."""
    init = folder / "__init__.py"
    yield f"{'  ' * depth}{folder.name}/".ljust(36) + (summary(init) if init.exists() else "")
    entries = sorted(folder.iterdir())
    for path in entries:
        if path.is_file() and path.suffix in SHOWN and path.name != "__init__.py":
            yield f"{'  ' * (depth + 1)}{path.name}".ljust(36) + summary(path)
    for path in entries:
        if path.is_dir() and path.name != "__pycache__":
            yield from lines(path, depth + 1)


def page_with_tree(page: str) -> str:
    """Return the page's text with the tree as it is now."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    tree = "\n".join(line.rstrip() for folder in FOLDERS for line in lines(ROOT / folder))
    return f"{before}{BEGIN}```text\n{tree}\n```\n{END}{after}"


def main() -> None:
    """Write the page, or with `--check` end with status 1 where it is out of date."""
    page = PAGE.read_text(encoding="utf-8")
    new = page_with_tree(page)
    if "--check" not in sys.argv:
        PAGE.write_text(new, encoding="utf-8")
    elif new != page:
        sys.exit(f"{PAGE}: the tree is out of date; run `make tree`")


if __name__ == "__main__":
    main()
