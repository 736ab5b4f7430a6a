import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from schemas.errors import ConfigError
from tasks.extras import PACKAGES, need_extra


def test_the_extras_are_those_of_the_project_and_the_lock_has_all(project: Path) -> None:
    declared = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    extras = declared["optional-dependencies"]
    assert set(PACKAGES) == set(extras) - {"docs", "dev"}
    named = {canonicalize_name(Requirement(each).name) for each in extras["train"]}
    assert named == set(map(canonicalize_name, PACKAGES["train"]))
    assert "--all-extras" in (project / "Makefile").read_text()


def test_work_without_its_extra_is_refused_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "torch" else find_spec(name))
    with pytest.raises(ConfigError) as refused:
        need_extra("train", what="`try`", instead="look at the file: `tunegate init`")
    assert refused.value.code == "TG0112"
    assert refused.value.message == "`try` needs the extra `train`; not installed: torch"
    assert refused.value.hint == "make install; or look at the file: `tunegate init`"
