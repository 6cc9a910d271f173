"""The help of both programs: options under headings, each one once; and what both have is the same in both."""

from __future__ import annotations

import re
from collections import Counter
from importlib.metadata import version

import click
import pytest

from duckling_data.base.command_line import CONTEXT, Grouped
from duckling_data.cli import cli as data
from duckling_train.cli import cli as train
from duckling_train.options import FLAGGED, HEADINGS

PROGRAMS = {"duckling-data": data, "duckling-train": train}
COMMANDS = [(name, command) for program in PROGRAMS.values() for name, command in program.commands.items()]
GROUPED = [(name, command) for name, command in [*COMMANDS, ("", train)] if isinstance(command, Grouped)]


def context_of(command: click.Command, width: int = 80) -> click.Context:
    return click.Context(command, info_name="x", terminal_width=width, show_default=True, **CONTEXT)


def test_every_setting_is_under_exactly_one_heading() -> None:
    times = Counter(name for names in HEADINGS.values() for name in names)
    assert {name: times[name] for name in FLAGGED} == dict.fromkeys(FLAGGED, 1)
    assert max(times.values()) == 1


def test_what_has_many_options_has_headings() -> None:
    names = ["download", "count", "build-vocab", "pack", "merge", "run", "report", "sweep", ""]
    assert [name for name, _ in GROUPED] == names


@pytest.mark.parametrize(("name", "command"), GROUPED)
def test_each_option_is_shown_once_as_click_shows_it_under_its_heading(name: str, command: Grouped) -> None:
    context = context_of(command)
    parts = re.split(r"^(\w[\w ]*):\n", command.get_help(context), flags=re.MULTILINE)[1:]
    sections = {title: " ".join(text.split()) for title, text in zip(parts[::2], parts[1::2], strict=True)}
    for option in (option for option in command.params if isinstance(option, click.Option)):
        record = option.get_help_record(context)
        assert record is not None
        shown = " ".join(" ".join(record).split())  # with its default
        (title,) = (title for title, names in command.headings.items() if option.name in names)
        assert [where for where, text in sections.items() if shown in text] == [title]
    assert "Options" not in sections


def test_what_both_programs_have_is_the_same_in_both() -> None:
    seen: dict[str, set[tuple[str, ...]]] = {}
    for _, command in [*COMMANDS, ("", train), ("", data)]:
        for option in command.get_params(context_of(command)):
            for flag in option.opts:
                seen.setdefault(flag, set()).add((*sorted(option.opts), *sorted(option.secondary_opts)))
    of_a_sweep = ("--seed", "--seeds", "--tied")  # there they take lists
    assert {flag: forms for flag, forms in seen.items() if len(forms) > 1 and flag not in of_a_sweep} == {}
    for flag in ("-n", "-w", "-q", "-h"):
        assert {flag} < {*next(iter(seen[flag]))}
    for program, command in PROGRAMS.items():
        (shown,) = (option for option in command.params if option.name == "version")
        assert shown.opts == ["--version"], program


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_version_names_the_program(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    from importlib import import_module

    with pytest.raises(SystemExit):
        import_module(f"{program.replace('-', '_')}.cli").main(["--version"])
    assert capsys.readouterr().out == f"{program} {version('duckling')}\n"


def test_values_are_shown_alike() -> None:
    """`a|b`, `N|all`, INTEGER, DIR: no brackets around choices, no RANGE."""
    for name, command in COMMANDS:
        assert not [
            word
            for word in ("[none", "RANGE ", "|ALL", "DIRECTORY")
            if word in command.get_help(context_of(command, width=500))
        ], name
