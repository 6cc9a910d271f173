"""Nothing of the machine, the user or the moment moves a byte: the same files from the same stories, everywhere.

Each command is a process of its own. The disturbances are joined (tests/support/determinism/cases.py), so that three
processes meet all of them; `scripts/soak_determinism.py` gives each alone, and says which one it is that moves a byte.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import HANG
from tests.support.data import SMALL, build, snapshot
from tests.support.determinism.cases import HIDDEN_C, PLAIN, UMLAUTS, joined
from tests.support.determinism.children import METHODS
from tests.support.determinism.commands import (
    digests,
    modes_left_by,
    pack,
    put,
    run_digests,
    story_files,
    train,
)
from tests.support.determinism.disturb import ROOT, Disturbance, Ended, compile_readdir, modes, run, turkish

MADE = ("tokenized_dataset/data-00000-of-00001.arrow", "report/index.html", "manifest.json", "SHA256SUMS")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux: cores, umask, LD_PRELOAD")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """A place with a folder of stories and a whole workspace made of them, and what was said meanwhile."""
    place = tmp_path_factory.mktemp("undisturbed")
    put(place / "stories", story_files())
    ended = pack(place, PLAIN)
    assert set(MADE) <= set(snapshot(place / "w"))
    return place, ended


@pytest.fixture(scope="module")
def undisturbed_run(undisturbed: tuple[Path, Ended], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    place = tmp_path_factory.mktemp("run")
    train(undisturbed[0] / "w", place, PLAIN)
    found = run_digests(place / "run")
    assert {
        "evaluation.jsonl",
        "model/model.safetensors",
        "metrics.jsonl",
        "dynamics.jsonl",
        "loss.png",
        "samples.txt",
        "config.json",
    } <= set(found)
    return found


@pytest.fixture(scope="module")
def locale(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a process under a Turkish 8-bit locale, or of the plainest where none can be compiled."""
    return turkish(tmp_path_factory.mktemp("locale")) or HIDDEN_C


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A place with the stories and no workspace."""
    put(tmp_path / "stories", story_files())
    return tmp_path


STYLE = {"font.size": 30, "lines.linewidth": 9, "axes.facecolor": "yellow", "savefig.dpi": 33}
"""Settings of a user's own that show in a plot."""
STYLE_FILE = "".join(f"{name}: {value}\n" for name, value in STYLE.items()).encode()

CASES = range(len(joined({})))
NAMES = [case.name for case in joined({})]


@linux
@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_a_workspace_is_the_same_bytes_with_the_modes_that_the_umask_leaves(
    undisturbed: tuple[Path, Ended], place: Path, locale: dict[str, str], case: int
) -> None:
    disturbance = joined(locale)[case]
    put(place, {f"{UMLAUTS}/matplotlibrc": STYLE_FILE})
    ended = pack(place, disturbance)
    assert digests(place / "w") == digests(undisturbed[0] / "w")
    assert ended.said == undisturbed[1].said  # no library adds a word of its own either
    assert modes(place / "w") == modes_left_by(disturbance.umask, place / "w")


@linux
@pytest.mark.parametrize("case", CASES[:2], ids=NAMES[:2])
def test_a_training_run_is_the_same_bytes_with_the_modes_that_the_umask_leaves(
    undisturbed: tuple[Path, Ended], undisturbed_run: dict[str, str], locale: dict[str, str], tmp_path: Path, case: int
) -> None:
    disturbance = joined(locale)[case]
    ended = train(undisturbed[0] / "w", tmp_path, disturbance)
    assert run_digests(tmp_path / "run") == undisturbed_run
    assert "Warning" not in ended.stderr
    assert modes(tmp_path / "run") == modes_left_by(disturbance.umask, tmp_path / "run")


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_neither_workers_nor_the_order_in_which_the_files_were_made_move_a_byte(
    undisturbed: tuple[Path, Ended], tmp_path: Path, workers: int, order: int
) -> None:
    put(tmp_path / "stories", dict(list(story_files().items())[::order]))
    build(tmp_path / "w", tmp_path / "stories", workers=workers, sample="all", live=300, dead=20, ctx=32)
    expected = digests(undisturbed[0] / "w")
    rows = {name: digest for name, digest in digests(tmp_path / "w").items() if name != "manifest.json"}
    assert len(rows) == 8
    assert all(expected[name] == digest for name, digest in rows.items() if name != "SHA256SUMS")


@pytest.fixture(scope="module")
def backwards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a process that reads every directory backwards."""
    library = compile_readdir(tmp_path_factory.mktemp("readdir"))
    if library is None:
        pytest.skip("needs Linux and a C compiler (cc) for tests/support/determinism/readdir.c")
    return {"LD_PRELOAD": str(library)}


def test_a_file_system_that_lists_its_entries_backwards_gives_the_same_bytes(
    undisturbed: tuple[Path, Ended], place: Path, backwards: dict[str, str]
) -> None:
    listed = [sys.executable, "-c", "import os, sys; print(*os.listdir(sys.argv[1]))", str(place / "stories")]
    names = subprocess.run(listed, env=os.environ | backwards, capture_output=True, text=True, check=True)
    assert names.stdout.split() == ["z.txt", "c", "b.parquet", "a.jsonl"]
    disturbance = Disturbance("backwards", backwards)
    pack(place, disturbance)
    assert digests(place / "w") == digests(undisturbed[0] / "w")


@pytest.fixture(scope="module")
def of_children(undisturbed: tuple[Path, Ended], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with the workspaces that children of a program built, by the way in which they were started."""
    place = tmp_path_factory.mktemp("children")
    line = [sys.executable, "-m", "tests.support.determinism.children", str(undisturbed[0] / "stories"), str(place)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False, timeout=HANG)
    assert (done.returncode, done.stderr) == (0, "")
    return place


@linux
@pytest.mark.parametrize("method", METHODS)
def test_a_child_process_of_any_kind_builds_the_same_bytes(
    undisturbed: tuple[Path, Ended], of_children: Path, method: str
) -> None:
    assert digests(of_children / method) == digests(of_children / "parent")
    rows = "tokenized_dataset/data-00000-of-00001.arrow"
    assert digests(of_children / method)[rows] == digests(undisturbed[0] / "w")[rows]


@pytest.fixture
def user_style() -> Iterator[None]:
    """matplotlib's settings as a user's own `matplotlibrc` would leave them."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        yield


@pytest.mark.usefixtures("user_style")
def test_a_users_matplotlibrc_moves_no_byte_of_a_loss_plot() -> None:
    import matplotlib

    from duckling_train.plot import loss_plot

    arguments = ([1, 2, 3], [9.0, 8.0, 7.5], "title", 320)
    styled = loss_plot(*arguments)
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        assert loss_plot(*arguments) == styled


def test_neither_an_unwritable_home_nor_an_outdated_matplotlibrc_adds_a_word(
    undisturbed: tuple[Path, Ended], place: Path
) -> None:
    (place / "matplotlibrc").write_text("font.size: huge\nno such key: 1\n")
    ended = pack(place, Disturbance("HOME", {"HOME": "/dev/null/home"}))
    assert digests(place / "w") == digests(undisturbed[0] / "w")
    assert ended.said == undisturbed[1].said


@pytest.mark.parametrize(("variables", "style"), [({"MPLBACKEND": "nonsense"}, b""), ({}, b"font.size: \xff\n")])
def test_a_matplotlib_configuration_that_cannot_be_read_is_named_in_one_line_or_without_effect(
    undisturbed: tuple[Path, Ended], place: Path, variables: dict[str, str], style: bytes
) -> None:
    (place / "matplotlibrc").write_bytes(style)
    arguments = ("run", "-w", place / "w", "--source", place / "stories", *SMALL)
    ended = run("duckling-data", place, Disturbance("broken", variables), *arguments)
    whole = undisturbed[1].said
    if ended.status == 0:
        assert (ended.said, digests(place / "w")) == (whole, digests(undisturbed[0] / "w"))
    else:
        assert (ended.status, ended.said[:-1]) == (2, whole[:-1])
        assert ended.said[-1].startswith("duckling-data: ")


@linux
@pytest.mark.parametrize("which", ["ASCII", "8-bit"])
def test_a_file_name_with_umlauts_is_the_same_in_the_manifest_of_any_locale_or_refused(
    tmp_path: Path, locale: dict[str, str], which: str
) -> None:
    ends, found = [], []
    for disturbance in (PLAIN, Disturbance(which, HIDDEN_C if which == "ASCII" else locale)):
        place = tmp_path / disturbance.name
        source = put(place / "stories", {"Märchen.txt": story_files()["z.txt"]})
        ends.append(run("duckling-data", place, disturbance, "pack", "-w", place / "w", "--source", source, *SMALL))
        found.append(digests(place / "w"))
    assert ends[0].status == 0
    if ends[1].status == 0:
        assert found[0] == found[1]
    else:
        assert (ends[1].status, len(ends[1].said), found[1]) == (2, 1, {})


@linux
def test_a_source_whose_name_is_not_utf_8_is_refused_in_one_line(place: Path) -> None:
    (place / "stories" / os.fsdecode(b"\xff.txt")).write_bytes(b"A story.")
    ended = run("duckling-data", place, PLAIN, "pack", "-w", place / "w", "--source", place / "stories", *SMALL)
    assert (ended.status, "Traceback" in ended.stderr) == (2, False), ended.stderr
