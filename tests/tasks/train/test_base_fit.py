"""A base model that was downloaded during the run is compared with the settings before it is trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.artifacts import ModelRef
from schemas.errors import TunegateError
from schemas.training import AdapterSpec, TrainSpec
from tasks.train.base_fit import check_prompts

MakeSpec = Callable[..., TrainSpec]


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"adapter": AdapterSpec(layers=99)}, "TG0181"),
        ({"adapter": AdapterSpec(target_modules=("no_proj",))}, "TG0181"),
        ({"max_length": 100_000}, "TG0111"),
    ],
    ids=["layers", "modules", "context"],
)
def test_settings_that_the_base_model_contradicts_are_refused_before_it_is_trained(
    tmp_path: Path, tiny_model: ModelRef, make_spec: MakeSpec, settings: dict[str, Any], code: str
) -> None:
    with pytest.raises(TunegateError) as refused:
        check_prompts(
            tmp_path,
            model=tiny_model,
            prompts=(),
            max_new_tokens=8,
            trains=(make_spec(**{"max_length": 256, **settings}),),
        )
    assert refused.value.code == code
    check_prompts(tmp_path, model=tiny_model, prompts=(), max_new_tokens=8, trains=(make_spec(max_length=256),))
