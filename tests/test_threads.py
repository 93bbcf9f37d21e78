"""The number of CPU threads within a context, and after it, also with several threads of Python."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from optuna_trlhpo._threads import cpu_threads


@pytest.fixture(autouse=True)
def _four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_the_inner_context_counts_and_the_outer_one_comes_back() -> None:
    with cpu_threads(2):
        with cpu_threads(1):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 4


def test_two_threads_whose_contexts_overlap_both_get_their_number_back() -> None:
    second_is_in, first_is_out = threading.Event(), threading.Event()
    seen = []

    def second() -> None:
        with cpu_threads(1):
            seen.append(torch.get_num_threads())
            second_is_in.set()
            first_is_out.wait(timeout=60)
            seen.append(torch.get_num_threads())
        seen.append(torch.get_num_threads())

    thread = threading.Thread(target=second)
    with cpu_threads(2):
        thread.start()
        second_is_in.wait(timeout=60)
        seen.append(torch.get_num_threads())
    seen.append(torch.get_num_threads())
    first_is_out.set()
    thread.join(timeout=60)
    assert seen == [1, 2, 4, 1, 4]


def test_a_function_can_be_decorated() -> None:
    @cpu_threads(1)
    def count() -> int:
        return torch.get_num_threads()

    assert [count(), count(), torch.get_num_threads()] == [1, 1, 4]
