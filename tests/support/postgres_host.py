"""A Postgres on the host that this is started on, until its input ends.

`python -m tests.support.postgres_host ADDRESS NETWORK`: the host's own address, and the network that may come in.
Each line of its input asks for a new, empty database; the answer is its address as other hosts see it.
"""

from __future__ import annotations

import sys

from tests.support.postgres import running_postgres


def main(address: str, network: str) -> None:
    with running_postgres(network) as server:
        for _ in sys.stdin:
            sys.stdout.write(server.fresh().replace("127.0.0.1", address) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
