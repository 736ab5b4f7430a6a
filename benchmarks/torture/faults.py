"""All faults, in the order of the table."""

from __future__ import annotations

from benchmarks.torture.commands import COMMANDS
from benchmarks.torture.company import COMPANY
from benchmarks.torture.damage import DAMAGE
from benchmarks.torture.disk import DISKS
from benchmarks.torture.kills import KILLS
from benchmarks.torture.machine import MACHINE
from benchmarks.torture.tampering import TAMPERING
from benchmarks.torture.traced import TRACED
from benchmarks.torture.trial import Fault

FAULTS: tuple[Fault, ...] = (*KILLS, *DISKS, *TRACED, *DAMAGE, *TAMPERING, *COMPANY, *MACHINE, *COMMANDS)
