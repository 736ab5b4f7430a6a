"""Fixtures shared with the tests of tests/flows/privacy."""

from __future__ import annotations

from tests.flows.privacy.conftest import workspace

__all__ = ["workspace"]
