"""Which cluster and which shared storage. Knows nothing of ray. Made by `flows/cluster.py`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """A running Ray cluster, and a storage that all its nodes see."""

    address: str
    """`RAY_ADDRESS`: host:port of the cluster's head, or `auto`. tunegate runs on one of its nodes and starts none."""
    shared: str
    """`TUNEGATE_SHARED`: an fsspec URL, such as `file:///mnt/shared` or `s3://bucket/prefix`."""
