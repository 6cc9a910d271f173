"""Shows that the bytes do not depend on the version of Python: demo artifacts and a short run, made under each.

    python scripts/check_pythons.py INTERPRETER... [--keep FOLDER]

For each interpreter a virtual environment is made with the pinned packages. Under it the demo artifacts are made, the
report too, and verified against the golden digests; then a short training run is made. Exit status 1 if any file's
SHA-256 differs from the first interpreter's. It downloads the packages anew for each, so it is run by hand.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.environments import ROOT, run

GOLDEN = ROOT / "artifacts" / "golden" / "demo.json"
TRAIN = ("--steps", "20", "--device", "cpu", "--threads", "2", "--quiet")
CLOCKED = "summary.json"
"""The one file of a run that holds the clock, and the versions."""


def main() -> None:
    """Make everything under each interpreter, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("interpreters", nargs="+", help="Python interpreters: names or paths")
    parser.add_argument("--keep", type=Path, help="keep environments and artifacts here (default: a temporary folder)")
    given = parser.parse_args()
    if given.keep:
        sys.exit(check(given.keep.absolute(), given.interpreters))
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(check(Path(folder), given.interpreters))


def check(folder: Path, interpreters: list[str]) -> int:
    """Do it in this folder. Returns the exit status."""
    made: dict[str, dict[str, str]] = {}
    for number, interpreter in enumerate(interpreters):
        place = folder / str(number)
        python = environment(place / "venv", interpreter)
        version = run(python, "-c", "import platform; print(platform.python_version())").strip()
        made[version] = digests(python, place / "workspace")
        print(f"Python {version}: {len(made[version])} files", flush=True)
    first, *others = made.values()
    differing = sorted({name for other in others for name in first | other if first.get(name) != other.get(name)})
    print(f"DIFFERENT: {', '.join(differing)}" if differing else "equal, every file")
    return 1 if differing else 0


def digests(python: Path, workspace: Path) -> dict[str, str]:
    """Make a workspace and a run under this Python. Returns the SHA-256 of every file that is hashed."""
    run(python, "-m", "duckling_data", "run", "-w", workspace, "--source", "demo", "--quiet")
    run(python, "-m", "duckling_data", "verify", "-w", workspace, "--golden", GOLDEN, "--quiet")
    run_dir = workspace / "runs" / "short"
    run(python, "-m", "duckling_train", "-w", workspace, "--out", run_dir, "--overwrite", *TRAIN)
    lines = (workspace / "SHA256SUMS").read_text().splitlines()
    found = {name: sha256 for sha256, name in (line.split("  ", 1) for line in lines)}
    files = json.loads((run_dir / "manifest.json").read_bytes())["files"]
    return found | {f"runs/{name}": made["sha256"] for name, made in files.items() if name != CLOCKED}


def environment(folder: Path, interpreter: str) -> Path:
    """Return the Python of a virtual environment with the project's dependencies, made if it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        run(interpreter, "-m", "venv", folder)
    with (ROOT / "pyproject.toml").open("rb") as file:
        dependencies = tomllib.load(file)["project"]["dependencies"]
    pinned = ("-c", ROOT / "constraints.txt")
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pinned, *dependencies)
    return python


if __name__ == "__main__":
    main()
