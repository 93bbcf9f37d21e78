"""Lock that keeps time measurements free of concurrent trainings and measurements."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class TimingLock:
    """Lock that trainings share and that a measurement holds exclusively.

    Trainings may run concurrently in threads. A measurement waits for them to end, and new trainings wait for
    the measurement.

    Examples:
        >>> machine = TimingLock()
        >>> with machine.training(), machine.training():
        ...     pass
        >>> with machine.measuring():
        ...     pass
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._trainings = self._to_measure = 0
        self._is_measuring = False

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Hold the shared lock: nothing is measured in the context. It is not reentrant."""
        with self._changed:
            # A waiting measurement goes first, or with many trainings it would never start.
            self._changed.wait_for(lambda: self._to_measure == 0)
            self._trainings += 1
        try:
            yield
        finally:
            with self._changed:
                self._trainings -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def measuring(self) -> Iterator[None]:
        """Hold the exclusive lock: nothing is trained and nothing else is measured in the context."""
        with self._changed:
            self._to_measure += 1
            try:
                self._changed.wait_for(lambda: not self._trainings and not self._is_measuring)
            except BaseException:  # such as a keyboard interrupt
                self._to_measure -= 1
                self._changed.notify_all()
                raise
            self._is_measuring = True
        try:
            yield
        finally:
            with self._changed:
                self._to_measure -= 1
                self._is_measuring = False
                self._changed.notify_all()


TIMING_LOCK = TimingLock()
"""Lock that all trainings and measurements of this process share."""
