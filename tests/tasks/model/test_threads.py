"""Steps of a graph run as threads: those that are first to need transformers at the same time all get it."""

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
