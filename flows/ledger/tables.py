"""The ledger's tables, once for every database that keeps them.

Written for SQLite; `flows/ledger/postgres.py` translates `INTEGER`, `REAL`, `TEXT` and `AUTOINCREMENT` for Postgres.
"""

VERSION = 3
"""Goes up with every change of `TABLES`: a ledger with other tables is refused as one of another version (TG0530)."""

TABLES = """
CREATE TABLE identity (
    id TEXT PRIMARY KEY,
    created_at TEXT NOT NULL
);
CREATE TABLE runs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL UNIQUE,
    pipeline TEXT NOT NULL,
    model_name TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('RUNNING', 'DONE', 'FAILED', 'INTERRUPTED', 'SKIPPED')),
    verdict TEXT CHECK (verdict IN ('PROMOTE', 'UNCOMPARED', 'HOLD', 'BLOCK', 'ERROR')),
    reason TEXT NOT NULL DEFAULT '',
    input_digest TEXT NOT NULL DEFAULT '',
    labels_digest TEXT NOT NULL DEFAULT '',
    terms TEXT NOT NULL DEFAULT '',
    config_json TEXT NOT NULL,
    as_of TEXT,
    settings TEXT NOT NULL DEFAULT '[]',
    code TEXT NOT NULL DEFAULT '',
    started_at TEXT NOT NULL,
    ended_at TEXT,
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
CREATE INDEX steps_by_key ON steps (key);
CREATE TABLE rewrites (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    step TEXT NOT NULL,
    key TEXT NOT NULL,
    from_digest TEXT NOT NULL,
    to_digest TEXT NOT NULL,
    at TEXT NOT NULL
);
CREATE INDEX rewrites_by_key ON rewrites (key);
CREATE TABLE held_out (
    digest TEXT PRIMARY KEY,
    items TEXT NOT NULL
);
CREATE TABLE shown_items (
    item TEXT PRIMARY KEY,
    run_seq INTEGER NOT NULL
);
CREATE TABLE candidates (
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    key TEXT NOT NULL,
    run_id TEXT NOT NULL,
    ref_json TEXT NOT NULL,
    verdict TEXT NOT NULL CHECK (verdict IN ('PROMOTE', 'UNCOMPARED', 'HOLD', 'BLOCK', 'ERROR')),
    reason TEXT NOT NULL,
    mlflow_version TEXT,
    recorded_at TEXT NOT NULL,
    evidence TEXT NOT NULL,
    PRIMARY KEY (name, version),
    UNIQUE (name, key)
);
CREATE TABLE verdicts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    run_id TEXT NOT NULL,
    verdict TEXT NOT NULL,
    trained TEXT NOT NULL,
    gates TEXT NOT NULL,
    at TEXT NOT NULL
);
CREATE INDEX verdicts_by_trained ON verdicts (trained);
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
    verdict TEXT NOT NULL,
    bundle_digest TEXT NOT NULL,
    until TEXT NOT NULL,
    evidence TEXT NOT NULL,
    note TEXT NOT NULL
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
CREATE TABLE ticks (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    cause TEXT NOT NULL,
    at TEXT NOT NULL,
    scheduled_for TEXT NOT NULL,
    decision_json TEXT NOT NULL
);
CREATE TABLE marks (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    snapshot_id TEXT NOT NULL,
    watermark TEXT NOT NULL,
    n_tickets INTEGER NOT NULL,
    at TEXT NOT NULL
);
CREATE TABLE tombstones (
    id TEXT PRIMARY KEY,
    tombstone_json TEXT NOT NULL
);
CREATE TABLE forgettings (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    tombstone TEXT NOT NULL,
    began TEXT NOT NULL,
    event TEXT NOT NULL CHECK (event IN ('began', 'goes', 'ended')),
    kind TEXT NOT NULL,
    place TEXT NOT NULL,
    fate TEXT NOT NULL,
    digest TEXT NOT NULL,
    n_rows INTEGER NOT NULL,
    at TEXT NOT NULL,
    UNIQUE (tombstone, began, event, kind, place, digest)
);
CREATE INDEX forgettings_by_place ON forgettings (place);
CREATE TABLE marked_versions (
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    tombstone TEXT NOT NULL,
    how TEXT NOT NULL,
    n_rows INTEGER NOT NULL,
    at TEXT NOT NULL,
    PRIMARY KEY (name, version, tombstone)
);
CREATE TABLE acceptances (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('new', 'restored')),
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,
    former TEXT NOT NULL,
    at TEXT NOT NULL
);
CREATE TABLE journal (
    seq INTEGER PRIMARY KEY,
    book TEXT NOT NULL,
    row_key TEXT NOT NULL,
    row_digest TEXT NOT NULL,
    at TEXT NOT NULL,
    prev_hash TEXT NOT NULL,
    hash TEXT NOT NULL
);
CREATE TABLE touched (
    book TEXT NOT NULL,
    row_key TEXT NOT NULL
);
"""

BOOKS = {
    "identity": ("id",),
    "runs": ("seq",),
    "steps": ("id",),
    "rewrites": ("id",),
    "held_out": ("digest",),
    "shown_items": ("item",),
    "candidates": ("name", "version"),
    "verdicts": ("id",),
    "champion_events": ("seq",),
    "champions": ("name",),
    "projections": ("id",),
    "ticks": ("seq",),
    "marks": ("seq",),
    "tombstones": ("id",),
    "forgettings": ("seq",),
    "marked_versions": ("name", "version", "tombstone"),
    "acceptances": ("id",),
}
"""Table -> the columns of its key; referenced tables first. The journal has every change of their rows."""
APPEND_ONLY = ("champion_events", "forgettings", "acceptances", "journal")
"""The database itself refuses to change or remove their rows."""
