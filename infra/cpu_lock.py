"""Print requirements.lock without torch and the CUDA libraries of its usual build; or the pin of torch.

python infra/cpu_lock.py requirements.lock           the lock for a machine without a GPU
python infra/cpu_lock.py requirements.lock --torch   torch==2.15.0, to install from an index of CPU builds
"""

import re
import sys
from pathlib import Path

CUDA = re.compile(r"(nvidia-|cuda-|triton==)")


def entries(lock: str) -> list[str]:
    """Split the lock into one string per pin, with its hashes."""
    return [entry.rstrip() + "\n" for entry in re.split(r"\n(?=[a-z0-9])", lock) if "==" in entry]


def main() -> int:
    """Print the lock, or the pin of torch with `--torch`."""
    found = entries(Path(sys.argv[1]).read_text())
    if "--torch" in sys.argv:
        sys.stdout.write(next(entry.split()[0] for entry in found if entry.startswith("torch==")) + "\n")
        return 0
    sys.stdout.writelines(entry for entry in found if not CUDA.match(entry) and not entry.startswith("torch=="))
    return 0


if __name__ == "__main__":
    sys.exit(main())
