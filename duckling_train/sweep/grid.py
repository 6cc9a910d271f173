"""The grid of a sweep: every combination of the values that its settings take, in one order; and how they are named.

A point's name depends on its settings alone: a larger grid finds the runs of a smaller one.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duckling_data.base.errors import InputError
from duckling_train.config import NOT_IN_THE_NAME, TrainConfig, number_text, word
from duckling_train.settings import FIELDS, make_config

SEEDS = ("data_seed", "seed")
MODEL_FIRST = ("n_layer", "n_embd", "n_head", "tied", "n_positions", "vocab_size", "batch_size")
ORDER = (*MODEL_FIRST, *(name for name in FIELDS if name not in (*MODEL_FIRST, "steps", *SEEDS)), "steps", *SEEDS)
"""All settings, from the outermost loop to the innermost."""
LONGEST_NAME = 200
"""Characters of a directory's name; file systems take 255 bytes."""

Lists = Mapping[str, Sequence[Any]]
"""The values of each setting that was given."""


@dataclass(frozen=True)
class Point:
    """One run of a sweep."""

    number: int
    """From 1, in the order of the grid."""
    name: str
    """Its directory's name: as `duckling-train` itself would call the run, with whatever else shapes its files."""
    config: TrainConfig
    swept: dict[str, Any]
    """Those of its settings that take several values in the grid, in ORDER."""

    @property
    def label(self) -> str:
        """The point for a person, as `layers 4, batch size 16, seed 42`; a grid of one point goes by its name."""
        return described(self.swept) or self.name


@dataclass(frozen=True)
class Grid:
    """A sweep's points."""

    swept: dict[str, tuple[Any, ...]]
    """The settings that take several values, in ORDER."""
    points: tuple[Point, ...]
    """Every combination of them."""

    def values(self, name: str) -> tuple[Any, ...]:
        """Return the values that the setting `name` takes in the grid, one for a setting that is not swept."""
        return self.swept.get(name, (getattr(self.points[0].config, name),))


def make_grid(
    lists: Lists, *, preset: str = "duckling-ii", file: Path | None = None, sizes: Mapping[str, Any] | None = None
) -> Grid:
    """Return the grid of the given values, over the rest of `make_config`'s sources. Raises as it does."""
    fixed = {name: values[0] for name, values in lists.items() if len(values) == 1}
    swept = {name: tuple(lists[name]) for name in ORDER if name in lists and len(lists[name]) > 1}
    points = []
    for number, values in enumerate(itertools.product(*swept.values()), 1):
        own = dict(zip(swept, values, strict=True))
        config = make_config(fixed | own, preset=preset, file=file, sizes=sizes)
        points.append(Point(number, point_name(config), config, own))
    return Grid(swept, tuple(points))


def point_name(config: TrainConfig) -> str:
    """Return the name of a run's directory: the run's own, and the settings that it leaves out where they deviate."""
    values = {name: getattr(config, name) for name in NOT_IN_THE_NAME if name not in ("steps", "seed")}
    deviating = [in_name(name, [value]) for name, value in values.items() if value != FIELDS[name].default]
    return "-".join([config.run_name(), *deviating])


def grid_name(grid: Grid) -> str:
    """Return a sweep's default name: what is swept or deviates, as `layers-2_4_8-batch-size-16-steps-2000-seed-42`.

    Raises InputError for a grid whose name would be too long for a directory.
    """
    values = {name: grid.values(name) for name in ORDER}
    told = [name for name in ORDER if name in (*grid.swept, "steps", "seed") or deviates(name, values[name][0])]
    if len(name := "-".join(in_name(name, values[name]) for name in told)) > LONGEST_NAME:
        raise InputError(f"the grid's own name would have {len(name)} characters: give the sweep a --name")
    return name


def deviates(name: str, value: Any) -> bool:
    """Return whether a setting shapes the numbers of a run and is not Duckling II's."""
    return name not in NOT_IN_THE_NAME and bool(value != FIELDS[name].default)


def in_name(name: str, values: Sequence[Any]) -> str:
    """Return a setting and its values as part of a directory's name, as `layers-2_4_8`."""
    return f"{word(name)}-{'_'.join(text(name, value).replace(':', '-') for value in values)}"


def text(name: str, value: Any) -> str:
    """Return a setting's value as the user would type it."""
    if isinstance(value, bool):
        return f"{'' if value else 'un'}tied" if name == "tied" else "on" if value else "off"
    if value is None:
        return "all" if name == "eval_rows" else "default"
    if isinstance(value, tuple | list):
        return ":".join(number_text(part) for part in value)
    return number_text(value) if isinstance(value, float) else str(value)


def spoken(name: str) -> str:
    """Return the setting `name` for a person, as `batch size`."""
    return word(name).replace("-", " ")


def described(settings: Mapping[str, Any]) -> str:
    """Return settings for a person, as `layers 4, batch size 16`."""
    parts = {name: text(name, value) for name, value in settings.items()}
    return ", ".join(part if name == "tied" else f"{spoken(name)} {part}" for name, part in parts.items())
