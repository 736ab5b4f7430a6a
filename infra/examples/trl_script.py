"""A training script with TRL that deploys only what the gate promotes.

`python trl_script.py --train` trains and writes the results of the held-out items; without it, the results that are
there are judged. Tunegate is called as a command and imports nothing here.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from gate import check

BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"


def train(data: Path, out: Path) -> None:
    """Fine-tune an adapter by TRL, and write its answers to the held-out items."""
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import pipeline
    from trl import SFTConfig, SFTTrainer

    rows = load_dataset("json", data_files={"train": str(data / "train.jsonl"), "test": str(data / "test.jsonl")})
    trainer = SFTTrainer(
        BASE, args=SFTConfig(output_dir="adapter"), train_dataset=rows["train"], peft_config=LoraConfig()
    )
    trainer.train()
    trainer.save_model("adapter")
    answer = pipeline("text-generation", model="adapter", max_new_tokens=64, return_full_text=False)
    with out.open("w", encoding="utf-8") as file:
        for row in rows["test"]:
            said = answer(row["prompt"])[0]["generated_text"]
            line = {"id": row["id"], "prompt": row["prompt"], "answer": said, "reference": row["completion"]}
            file.write(json.dumps(line) + "\n")


def main() -> int:
    """Train if asked, judge, and return the exit code of the script."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--train", type=Path, metavar="DATA", help="folder with train.jsonl and test.jsonl")
    parser.add_argument("--results", type=Path, default=Path("candidate.jsonl"))
    parser.add_argument("--version-of", default="", help="such as the commit of the training script")
    given, more = parser.parse_known_args()
    if given.train:
        train(given.train, given.results)
    found = check("support", given.results, "--version-of", given.version_of, *more)
    sys.stdout.write(f"{found['verdict']}: {found['reason']}\n")
    return 0 if found["verdict"] in ("PROMOTE", "SKIP") else 1  # deploy only then


if __name__ == "__main__":
    sys.exit(main())
