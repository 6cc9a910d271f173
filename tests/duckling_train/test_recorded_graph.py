"""The model of a CUDA graph that the tests of a GPU's way of training run on: what it refuses, and what it repeats."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.support.recorded_graph import ForbiddenError, RecordedGraphs


@pytest.mark.parametrize(
    "work",
    [float, bool, torch.nonzero, lambda x: x[x > 0], lambda x: x + torch.tensor(1.0), torch.bernoulli],
    ids=["float", "bool", "nonzero", "mask", "constant", "random"],
)
def test_what_no_graph_captures_is_refused(work: Callable[[torch.Tensor], object]) -> None:
    x = torch.full((1,), 0.5)
    with pytest.raises(ForbiddenError):
        RecordedGraphs().capture(lambda: (work(x), None)[1])


def test_a_capture_leaves_no_trace_and_a_replay_sees_what_memory_holds_then() -> None:
    x, made = torch.ones(3), []
    replay = RecordedGraphs().capture(lambda: made.append(x.add_(1) * 2))
    assert torch.equal(x, torch.ones(3))
    assert made[0].isnan().all()
    x.fill_(5)
    replay()
    assert (x.tolist(), made[0].tolist()) == ([6.0] * 3, [12.0] * 3)


def test_a_python_number_stays_what_it_was_at_the_capture() -> None:
    x, rate = torch.zeros(1), [1.0]
    replay = RecordedGraphs().capture(lambda: (x.add_(torch.ones_like(x), alpha=rate[0]), None)[1])
    rate[0] = 5.0
    replay()
    assert x.item() == 1.0


def test_a_view_and_what_is_written_through_it_are_of_the_same_memory() -> None:
    x, made = torch.zeros(2, 3), list[torch.Tensor]()

    def work() -> None:
        x[1].copy_(x[0] + 1)
        made.append(x.T[:, 1])

    replay = RecordedGraphs().capture(work)
    x[0] = 4.0
    replay()
    assert made[0].tolist() == [5.0] * 3
