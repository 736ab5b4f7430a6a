"""The source of truth about runs, steps, verdicts and champions, in one SQLite file or in Postgres.

Others use `ledger.py`, opened by `opened.py`. `runs`, `champions`, `promotions`, `history`, `ticks` and `erasures` are
its books; `base`, `sqlite`, `postgres` and `tables` store them.
"""
