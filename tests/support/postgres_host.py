"""Runs a Postgres on this host until its standard input ends.

`python -m tests.support.postgres_host ADDRESS NETWORK`: the host's own address, and the network that may connect.
Each input line requests a new, empty database; the reply is its address as other hosts see it.
"""

import sys

from tests.support.postgres import running_postgres


def main(address: str, network: str) -> None:
    with running_postgres(network) as server:
        for _ in sys.stdin:
            sys.stdout.write(server.fresh().replace("127.0.0.1", address) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
