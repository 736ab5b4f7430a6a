"""The repository follows its own rules: lock file, names, settings, threat model."""

import importlib.util
import re
import tomllib
from collections import Counter
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from flows.workspace.servers import MLFLOW_ENVIRONMENT, PREFECT_ENVIRONMENT
from infra.pythons import allowed_versions

OUR_FOLDERS = ("flows", "tasks", "schemas")


def pins(project: Path) -> dict[str, list[str]]:
    """Name -> pinned versions of requirements.lock (one per marker)."""
    text = (project / "requirements.lock").read_text()
    found: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", text, re.M):
        found.setdefault(canonicalize_name(name), []).append(version)
    return found


def test_every_requirement_of_pyproject_is_pinned_within_its_range(project: Path) -> None:
    table = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    wanted = [*table["dependencies"], *(r for extra in table["optional-dependencies"].values() for r in extra)]
    locked = pins(project)
    for requirement in map(Requirement, wanted):
        versions = locked.get(canonicalize_name(requirement.name), [])
        assert versions, f"{requirement.name} is not in requirements.lock: make lock"
        assert all(requirement.specifier.contains(version) for version in versions), requirement


def test_the_pages_claim_the_python_versions_that_the_tests_have_run_on(project: Path) -> None:
    classifiers = tomllib.loads((project / "pyproject.toml").read_text())["project"]["classifiers"]
    proven = [each.rpartition(" ")[2] for each in classifiers if re.search(r"Python :: 3\.\d+$", each)]
    assert set(proven) <= set(allowed_versions())
    for page in ("README.md", "docs/tutorial.md"):
        assert f"Python {proven[0]} to {proven[-1]}," in (project / page).read_text(encoding="utf-8")


def test_the_lock_has_a_hash_for_every_pin_and_no_address(project: Path) -> None:
    text = (project / "requirements.lock").read_text()
    assert "://" not in text
    assert "--index" not in text
    for entry in re.split(r"\n(?=[a-z])", text):
        if "==" in entry:
            assert "--hash=sha256:" in entry, entry.splitlines()[0]


def test_no_other_distribution_ships_our_folders() -> None:
    owners = metadata.packages_distributions()
    for name in OUR_FOLDERS:
        assert set(owners.get(name, [])) <= {"tunegate"}, name


def test_every_module_has_a_docstring(project: Path) -> None:
    for folder in OUR_FOLDERS:
        for path in sorted((project / folder).rglob("*.py")):
            assert path.read_text().startswith('"""'), f"{path} has no docstring"


def test_no_two_classes_of_the_source_have_one_name(project: Path) -> None:
    files = [each for room in (*OUR_FOLDERS, "infra") for each in (project / room).rglob("*.py")]
    defined = [name for each in files for name in re.findall(r"^ *class (\w+)", each.read_text(encoding="utf-8"), re.M)]
    assert not {name: n for name, n in Counter(defined).items() if n > 1}


def test_the_local_servers_use_the_settings_profile(project: Path) -> None:
    lines = (project / "infra" / "environment.env").read_text().splitlines()
    profile = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert profile == {**PREFECT_ENVIRONMENT, **MLFLOW_ENVIRONMENT}


def test_no_code_uses_pickle_or_remote_code(project: Path) -> None:
    for folder in OUR_FOLDERS:
        for path in (project / folder).rglob("*.py"):
            text = path.read_text()
            assert not re.search(r"^\s*(import|from) (pickle|cloudpickle|joblib|dill)\b", text, re.M), path
            assert "trust_remote_code=True" not in text, path


def test_every_line_of_the_threat_model_names_tests_that_exist(project: Path) -> None:
    text = (project / "SECURITY.md").read_text(encoding="utf-8")
    lines = [line for line in text.split("## Threats, measures")[1].splitlines() if line.startswith("| ")]
    rows = [line for line in lines if not line.startswith(("| threat", "|---"))]
    assert len(rows) > 30
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row.rpartition(" | ")[2])
        assert named, f"no test covers: {row}"
        for file, test in named:
            assert re.search(rf"^(async )?def {test}\(", (project / file).read_text(encoding="utf-8"), re.M), test
    assert "SECURITY.md" in (project / "README.md").read_text(encoding="utf-8")


def test_the_packages_are_imported_from_the_checkout(project: Path) -> None:
    for name in OUR_FOLDERS:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin == str(project / name / "__init__.py")
