"""Serve a database to many workers: they speak to this proxy, and it alone to the database.

Workers open it with ``--storage grpc://HOST:PORT``. The proxy spares the database hundreds of connections,
and workers need no driver and no password of it. Proxy and workers need ``grpcio`` and ``protobuf``. Nothing
is encrypted: run it in a network of your own.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from optuna.storages import get_storage, run_grpc_proxy_server


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", default="sqlite:///digits.db", help="URL (%(default)s)")
    parser.add_argument("--host", default="localhost", help="0.0.0.0 for workers elsewhere (%(default)s)")
    parser.add_argument("--port", type=int, default=13000, help="(%(default)s)")
    parser.add_argument("--threads", type=int, default=10, help="requests at a time (%(default)s)")
    args = parser.parse_args(argv)

    # Not `RDBStorage` itself: `get_storage` adds the cache of finished trials.
    storage = get_storage(args.database)
    print(f"serving {args.database} at grpc://{args.host}:{args.port}", flush=True)
    run_grpc_proxy_server(
        storage, host=args.host, port=args.port, thread_pool=ThreadPoolExecutor(args.threads)
    )


if __name__ == "__main__":
    main()
