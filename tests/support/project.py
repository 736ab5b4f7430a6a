"""The checkout's path, for tests that start commands in it or read its files."""

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
