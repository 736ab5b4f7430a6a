"""A sweep as trainings of our worker in one process: `sweep_engine.py on|off job.json answer.json`.

Trials differ in learning rate and share base, data, layers and a folder for what the frozen layers compute. `on` and
`off` are `train.cache_trunk`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from tasks.files import write_json
from tasks.train import worker
from tasks.train.job import FINAL


def main() -> None:
    """Each trial with the CPU and wall seconds it took, its loading included."""
    cache, job_file, answer = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    told = json.loads(job_file.read_text())
    trials = []
    # What all trials import is no part of any.

    for number, rate in enumerate(told.pop("rates")):
        scratch = answer.parent / f"trial-{cache}-{number}"
        scratch.mkdir(parents=True)
        job = {
            **told,
            "spec": {**told["spec"], "learning_rate": rate, "cache_trunk": cache},
            "scratch": str(scratch),
            "trunks": str(answer.parent / "trunks"),
        }
        write_json(scratch / "job.json", job)
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        code = worker.main(scratch / "job.json")
        if code:
            sys.exit(f"trial {number} ended with {code}")
        told_loss = json.loads((scratch / FINAL / "training.json").read_text())["validation_loss"]
        trials.append(
            {
                "cpu_s": time.process_time() - cpu_s,
                "wall_s": time.perf_counter() - wall_s,
                "validation_loss": told_loss,
            }
        )
    answer.write_text(json.dumps({"trials": trials}))


if __name__ == "__main__":
    main()
