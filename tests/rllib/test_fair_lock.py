"""Who gets the lock, and when."""

import threading
import time
from collections.abc import Callable

import pytest

from perceiver_rl.rllib.learners.fair_lock import FairLock


def _in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_lock__is_not_kept_from_others_by_a_thread_that_takes_it_again_at_once() -> None:
    lock, stop, pieces = FairLock(), threading.Event(), [0]

    def work() -> None:
        while not stop.is_set() and pieces[0] < 400:
            with lock:
                pieces[0] += 1
                time.sleep(0.005)

    thread = _in_thread(work)
    waited = []
    for _ in range(20):
        time.sleep(0.003)
        before = pieces[0]
        with lock:
            during = pieces[0]
            waited.append(during - before)
            time.sleep(0.002)
            assert pieces[0] == during, "both had it"
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert max(waited) <= 3, waited  # more than one where this thread loses its core before it asks


def test_lock__goes_to_threads_in_the_order_in_which_they_asked() -> None:
    lock, order, threads = FairLock(), [], []

    def take(number: int) -> None:
        with lock:
            order.append(number)

    with lock:
        for number in range(20):
            threads.append(_in_thread(lambda number=number: take(number)))
            while len(lock._waiting) <= number:
                time.sleep(0.001)
    for thread in threads:
        thread.join(10)
    assert order == list(range(20))


def test_lock__may_be_taken_again_by_its_thread_and_is_free_after_the_last() -> None:
    lock, order = FairLock(), []

    def ask() -> None:
        with lock:
            order.append("other")

    def nest() -> None:
        with lock:
            other = _in_thread(ask)
            while not lock._waiting:
                time.sleep(0.001)
            with lock:
                order.append("inner")
            time.sleep(0.02)
            order.append("outer")
        other.join(10)

    thread = _in_thread(nest)
    thread.join(10)
    assert not thread.is_alive(), "it waits for itself"
    assert order == ["inner", "outer", "other"]


def test_lock__is_free_after_an_error() -> None:
    lock, done = FairLock(), threading.Event()
    with pytest.raises(OSError, match="broken"), lock:
        raise OSError("broken")

    def take() -> None:
        with lock:
            done.set()

    _in_thread(take)
    assert done.wait(10)


def test_lock__passes_over_who_gave_up_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = FairLock()

    def interrupted(until: Callable[[], bool]) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(lock._changed, "wait_for", interrupted)
        with pytest.raises(KeyboardInterrupt), lock:
            pass
    done = threading.Event()

    def take() -> None:
        with lock:
            done.set()

    _in_thread(take)
    assert done.wait(10)
