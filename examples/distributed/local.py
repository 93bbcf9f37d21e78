"""Start several workers on this machine, and wait for them.

Without options they share a journal file, ``digits.log``. Options that are not listed here are those of
``worker.py``: ``python local.py --workers 6 --workers-per-gpu 3`` starts three workers on each of two GPUs.
Ctrl-C or SIGTERM lets every worker finish its trial.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import worker


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2, help="processes (%(default)s)")
    args, options = parser.parse_known_args(argv)

    # One thread each: networks this small gain nothing from a second, and workers would compete for cores.
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    program = [sys.executable, str(Path(worker.__file__)), *options]
    processes = [
        # In sessions of their own, so that Ctrl-C does not reach them: it would cut their trials off.
        subprocess.Popen([*program, "--index", str(index)], env=environment, start_new_session=True)
        for index in range(args.workers)
    ]

    def stop(*_: object) -> None:
        for process in processes:
            process.terminate()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    return int(any([process.wait() for process in processes]))


if __name__ == "__main__":
    sys.exit(main())
