"""Writes `artifacts/golden/demo.json`: the digests of the demo corpus at its defaults, made in a fresh workspace.

Run it (`make golden`) only when bytes are meant to move, and say in the commit why they do.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from duckling_data.base.disk import make_directory
from duckling_data.base.executor import default_workers
from duckling_data.base.progress import Reporter
from duckling_data.pipeline import Pipeline, Request
from duckling_data.verify import write_golden

GOLDEN = Path(__file__).parent.parent / "artifacts" / "golden" / "demo.json"


def main() -> None:
    """Make the demo corpus and write its digests."""
    with tempfile.TemporaryDirectory() as folder:
        request = Request(Path(folder), default_workers(), ("demo",))
        manifest = Pipeline(request, Reporter()).make("pack")
        make_directory(GOLDEN.parent)
        write_golden(manifest, GOLDEN)
    print(f"wrote {GOLDEN}")


if __name__ == "__main__":
    main()
