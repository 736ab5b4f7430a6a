"""`make demo`: the main pipeline, then its mis-tagged twin, then a run with nothing to do; exit codes are checked.

State goes to `.tunegate/` like that of any run, so a second demo reuses what is still valid.
"""

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
TUNEGATE = Path(sys.executable).with_name("tunegate")

SCENES = (
    ("1. tickets to a champion", ["run", "support-replies"], 0, {"PROMOTE", "SKIP"}),
    (
        "2. trained on mis-tagged tickets: must be blocked",
        ["run", "support-replies-mislabelled", "--again"],
        5,
        {"BLOCK"},
    ),
    ("3. the first one again, nothing changed: must be skipped", ["run", "support-replies"], 0, {"SKIP"}),
)
"""Title, command, exit code, allowed verdicts."""
TICKET = (
    "I am quite worried. The tracking of the lamp is settled, but nobody has answered me about the double charge for "
    "the charger. This is urgent."
)
SUBJECT = "Order NB-40417"


def main() -> int:
    """Run the scenes; return 0 if every exit code is the expected one."""
    begun = time.monotonic()
    try:
        champions = []
        for title, arguments, expected, verdicts in SCENES:
            say(f"\n== {title}\n$ tunegate {' '.join(arguments)}")
            since = time.monotonic()
            done = subprocess.run([TUNEGATE, *arguments, "--json"], cwd=PROJECT, check=False, stdout=subprocess.PIPE)
            say(f"exit code {done.returncode} (expected {expected}), {time.monotonic() - since:.0f} s")
            outcome = json.loads(done.stdout or "{}")
            champions.append(outcome.get("champion"))
            if done.returncode != expected or outcome.get("verdict") not in verdicts:
                return 1
        say(f"\nchampion after each scene: {', '.join(f'version {version}' for version in champions)}")
        if None in champions or len(set(champions)) != 1:
            return 1
        command = [TUNEGATE, "predict", "support-replies", "--subject", SUBJECT]
        say(f"\n== the champion answers a ticket\n$ tunegate {shlex.join(command[1:])} <<< '{TICKET}'")
        if subprocess.run(command, cwd=PROJECT, input=TICKET, text=True, check=False).returncode != 0:
            return 1
    finally:
        subprocess.run([TUNEGATE, "ops", "down"], cwd=PROJECT, check=False, stdout=subprocess.DEVNULL)
    say(f"\ndemo done in {time.monotonic() - begun:.0f} s; `tunegate ops up` shows it in Prefect and MLflow")
    return 0


def say(text: str) -> None:
    """Write to stderr, in order with the commands' own output."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
