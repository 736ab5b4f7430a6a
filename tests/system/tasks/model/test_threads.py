"""Steps of a graph run as threads: those that are first to need a library of models at the same time all get it."""

import subprocess
import sys

CODE = """
import threading
from tasks.model.limited_template import _compiled
from tasks.model.skeleton import full_config

first = threading.Barrier(4)
failed = []

def begin(work):
    first.wait()
    try:
        work()
    except Exception as error:
        failed.append(repr(error))

works = [lambda: full_config({"model_type": "llama"}), lambda: _compiled("{{ messages }}")] * 2
threads = [threading.Thread(target=begin, args=(work,)) for work in works]
for each in threads:
    each.start()
for each in threads:
    each.join()
print(failed)
"""


def test_threads_that_first_need_transformers_at_once_all_get_it() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


HASHES = """
import threading
from datasets.fingerprint import Hasher
from tasks.model.import_once import import_for_step

def hash_new_types():
    import_for_step(["transformers", "datasets"])
    for number in range(50):
        Hasher.hash(type(f"New{number}", (), {})())
    print("hashed")

hashing = threading.Thread(target=hash_new_types)
hashing.start()
import_for_step(["transformers"])
hashing.join()
"""


def test_datasets_never_uses_transformers_while_another_step_imports_it() -> None:
    done = subprocess.run([sys.executable, "-c", HASHES], capture_output=True, text=True, check=True)
    assert "hashed" in done.stdout, done.stderr
