"""The ledger's tables, once for every database that keeps them.

Written in the words of SQLite; `flows/engine/ledger_postgres.py` reads `INTEGER`, `REAL`, `TEXT` and `AUTOINCREMENT` as
what Postgres calls them. How older ones become these is in `ledger_upgrade.py`.
"""

from __future__ import annotations

VERSION = 2

TABLES = """
CREATE TABLE runs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL UNIQUE,
    pipeline TEXT NOT NULL,
    model_name TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('RUNNING', 'DONE', 'FAILED', 'INTERRUPTED', 'SKIPPED')),
    verdict TEXT CHECK (verdict IN ('PROMOTE', 'HOLD', 'BLOCK', 'ERROR')),
    reason TEXT NOT NULL DEFAULT '',
    input_digest TEXT NOT NULL,
    config_json TEXT NOT NULL,
    code TEXT NOT NULL,
    started_at TEXT NOT NULL,
    ended_at TEXT,
    pid INTEGER NOT NULL,
    exit_code INTEGER,
    prefect_run_id TEXT,
    mlflow_run_id TEXT
);
CREATE INDEX runs_by_input ON runs (pipeline, input_digest, seq);
CREATE TABLE steps (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL REFERENCES runs (run_id),
    step TEXT NOT NULL,
    key TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('reused', 'done', 'failed')),
    digest TEXT NOT NULL,
    seconds REAL NOT NULL,
    n_in INTEGER,
    n_out INTEGER,
    error TEXT NOT NULL DEFAULT '',
    UNIQUE (run_id, step)
);
CREATE INDEX steps_by_name ON steps (step, state, id);
CREATE TABLE candidates (
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    key TEXT NOT NULL,
    run_id TEXT NOT NULL,
    ref_json TEXT NOT NULL,
    verdict TEXT NOT NULL CHECK (verdict IN ('PROMOTE', 'HOLD', 'BLOCK', 'ERROR')),
    reason TEXT NOT NULL,
    mlflow_version TEXT,
    recorded_at TEXT NOT NULL,
    PRIMARY KEY (name, version),
    UNIQUE (name, key)
);
CREATE TABLE champion_events (
    seq INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    from_version TEXT,
    to_version TEXT NOT NULL,
    action TEXT NOT NULL CHECK (action IN ('promote', 'force', 'approve', 'rollback', 'wait', 'reject')),
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,
    run_id TEXT NOT NULL,
    verdict_digest TEXT NOT NULL,
    at TEXT NOT NULL,
    prev_hash TEXT NOT NULL,
    hash TEXT NOT NULL,
    verdict TEXT NOT NULL DEFAULT '',
    bundle_digest TEXT NOT NULL DEFAULT '',
    until TEXT NOT NULL DEFAULT ''
);
CREATE TABLE champions (
    name TEXT PRIMARY KEY,
    version TEXT NOT NULL,
    seq INTEGER NOT NULL REFERENCES champion_events (seq)
);
CREATE TABLE projections (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    payload TEXT NOT NULL,
    done_at TEXT
);
"""

BOOKS = ("runs", "steps", "candidates", "champion_events", "champions", "projections")
"""The tables of TABLES, those that are pointed at first."""
EXTRAS = ("ticks", "marks", "tombstones", "forgettings", "marked_versions")
"""Tables that a ledger gets when it first needs them; see `ticks.py` and `forgettings.py`."""
