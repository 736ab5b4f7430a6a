"""The ledger: the truth about runs, steps, verdicts and champions. MLflow and Prefect are projections of it.

`Runs` (`flows/engine/runs.py`), `Ticks` (`ticks.py`), `Tallies` (`tallies.py`), `Approvals` (on `promotions.py`, on
`champions.py`), `Forgettings` (`forgettings.py`) and `Acceptances` (`acceptances.py`) over one SQLite file,
`ledger.sqlite` in the home folder, or over a Postgres that several hosts share.
"""

from __future__ import annotations

from flows.engine.acceptances import Acceptances
from flows.engine.approvals import Approvals
from flows.engine.forgettings import Forgettings
from flows.engine.runs import Runs
from flows.engine.tallies import Tallies
from flows.engine.ticks import Ticks


class Ledger(Runs, Ticks, Tallies, Approvals, Forgettings, Acceptances):
    """`Ledger(home)`, or `Ledger(home, "postgresql://...")`; making it touches nothing, reading creates nothing."""
