"""The gate, simulated: its own promises (`promises.py`), other tools' rules beside it (`league.py`), on simulated
(`simulated.py`) and real answers (`real_pairs.py`). `__main__.py` runs all of it."""
