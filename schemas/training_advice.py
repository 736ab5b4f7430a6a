"""Advice on valid but questionable settings of `train`, for `tunegate validate` and `plan`."""

from schemas.evaluation import EvaluateSpec
from schemas.learning_rate import describe_unusual_rate, is_usual
from schemas.template import template_columns
from schemas.training import TrainSpec


def training_advice(train: TrainSpec) -> list[str]:
    """Valid but questionable settings, one sentence each.

    >>> from schemas.training import TrainSpec
    >>> training_advice(TrainSpec(base_model="file:m", learning_rate=2e-3))
    ['train.learning_rate 0.002 is unusual for method lora: 0.0001 to 0.0003 is usual']
    """
    advice = []
    if not is_usual(train.method, train.learning_rate) and not train.allow_unusual_learning_rate:
        advice.append(f"train.{describe_unusual_rate(train.method, train.learning_rate)}")
    if train.method in ("full", "lora") and train.quantization is not None and "quantization" in train.model_fields_set:
        advice.append(
            f"train.quantization has no effect with method {train.method}, which loads the base in full precision; "
            "use method: qlora for 4 bits"
        )
    if train.method == "full" and "adapter" in train.model_fields_set:
        advice.append("train.adapter has no effect with method full, which trains every weight")
    if train.early_stopping is not None and train.lr_scheduler != "constant":
        advice.append(
            f"train.early_stopping may end the training before lr_scheduler {train.lr_scheduler} has lowered the rate"
        )
    return advice


def prompt_advice(train: TrainSpec, evaluate: EvaluateSpec) -> list[str]:
    """Columns that the prompt shows and the answer is scored by, one sentence each; `{reply}` is an error.

    >>> from schemas.training import PromptSpec
    >>> train = TrainSpec(base_model="file:m", prompt=PromptSpec(user="{category}: {body}", answer="{category}"))
    >>> prompt_advice(train, EvaluateSpec())
    ['train.prompt shows {category}, a part of the answer: to get it right proves nothing, and a new ticket has none']
    """
    shown = (*template_columns(train.prompt.system), *template_columns(train.prompt.user))
    wanted = {*template_columns(train.prompt.answer), *evaluate.field_names()} - {"reply"}
    proves = "to get it right proves nothing, and a new ticket has none"
    return [
        f"train.prompt shows {{{column}}}, a part of the answer: {proves}"
        for column in dict.fromkeys(shown)
        if column in wanted
    ]
