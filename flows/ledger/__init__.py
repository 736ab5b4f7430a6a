"""The source of truth about runs, steps, verdicts and champions, as one SQLite file or in Postgres.

`ledger.py` is what others use, opened by `opened.py`; each of `runs`, `champions`, `promotions`, `history`, `ticks` and
`erasures` is one of its books; `base`, `sqlite`, `postgres` and `tables` keep them.
"""
