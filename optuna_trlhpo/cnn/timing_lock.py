"""One measurement of time on a machine at once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class TimingLock:
    """Trainings may go side by side, in threads; a measurement waits for them to end, and they wait for it.

    Example:
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
        """Within, nothing is measured. Not to be entered again within."""
        with self._changed:
            # Also while one waits to measure, or with many trainings its turn would never come.
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
        """Within, nothing is trained, and nothing else is measured."""
        with self._changed:
            self._to_measure += 1
            try:
                self._changed.wait_for(lambda: not self._trainings and not self._is_measuring)
            except BaseException:  # an interrupt
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
"""The one that all trainings and measurements of this process share."""
