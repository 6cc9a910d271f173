"""An executor gives each item's result under its number, in order or as they come, and takes no item too early."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from duckling_data.base.executor import AHEAD, LocalExecutor, prefetch


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("workers", [1, 3])
def test_every_item_has_one_result_under_its_number(workers: int, ordered: bool) -> None:
    results = list(LocalExecutor(workers).map(lambda item: item * item, range(20), ordered=ordered))
    assert (results if ordered else sorted(results)) == [(number, number**2) for number in range(20)]


@pytest.mark.parametrize("ordered", [True, False])
def test_order_is_by_number_or_by_completion(ordered: bool) -> None:
    others_done = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            assert others_done.wait(60)
        elif number == 3 and ordered:
            others_done.set()
        return number

    found = []
    for number, _ in LocalExecutor(2).map(work, range(4), ordered=ordered):
        found.append(number)
        if len(found) == 3:
            others_done.set()
    assert found == ([0, 1, 2, 3] if ordered else [1, 2, 3, 0])


@pytest.mark.parametrize(("ordered", "ahead"), [(True, AHEAD), (False, 0)])
def test_few_items_are_taken_before_their_results_are(ordered: bool, ahead: int) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        while taken < 30:
            taken += 1
            yield taken

    for given, _ in enumerate(LocalExecutor(2).map(abs, items(), ordered=ordered)):
        assert taken - given <= 2 + ahead


def test_an_exception_is_raised_in_its_turn_and_begins_no_further_item() -> None:
    begun = []

    def work(number: int) -> int:
        begun.append(number)
        time.sleep(0.01)
        return 1 // (2 - number)

    results = LocalExecutor(2).map(work, range(100), ordered=True)
    assert [next(results), next(results)] == [(0, 0), (1, 1)]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert max(begun) <= 2 + 2 + AHEAD


@pytest.mark.parametrize("depth", [1, AHEAD])
def test_prefetched_items_are_the_items_and_their_error_comes_after_them(depth: int) -> None:
    def items() -> Iterator[int]:
        yield from range(9)
        raise ValueError("damaged")

    assert list(prefetch(range(9), depth)) == list(range(9))
    found = []
    with pytest.raises(ValueError, match="damaged"):
        found.extend(item for item in prefetch(items(), depth))
    fetched = prefetch(items(), depth)
    assert next(fetched) == 0
    fetched.close()  # type: ignore[attr-defined]  # ends, though items are left
