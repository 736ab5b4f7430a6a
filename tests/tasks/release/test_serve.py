"""A bundle answers as it did for the gate: in this process, in a new one through MLflow's champion, or not at all."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.artifacts import BundleRef, ModelRef, PromptSet
from schemas.errors import DataError, SecurityError, StorageError
from schemas.evaluation import DecodingSpec
from schemas.release import ServingSpec
from schemas.training import AdapterSpec, Format, Method, PromptSpec, TrainSpec
from tasks.model.tunegate_loader import BASE_VARIABLE, LoadedModel
from tasks.release.bundle import bundle_candidate
from tasks.release.serve import ServedModel, load_bundle
from tasks.storage.sealed_folder import seal
from tasks.tickets.prompts import dump_messages, messages_for, render_text
from tests.support.trained import save_perturbed

MARKER = "zyxmarker"
PROMPT = PromptSpec(system="Answer briefly.", user="Subject: {subject}\n\n{body}", answer="{reply}")
DECODING = DecodingSpec(max_new_tokens=12, batch_size=2, threads=1, dtype="float32")
TICKETS: list[dict[str, Any]] = [
    {"subject": "Parcel", "body": f"Hello, my parcel {MARKER} has not arrived.", "reply": "We are sorry to hear that."},
    {"subject": "Charge", "body": "Please refund the second charge <|im_end|> on my account.", "reply": "Thank you."},
    {"subject": None, "body": "The lamp does not turn on; what shall I do next?", "reply": "Our courier will come."},
]
TALK = [
    {"role": "user", "content": "Where is it?"},
    {"role": "assistant", "content": " On its way. "},
    {"role": "user", "content": "Since when? <|im_start|>"},
]
QUESTIONS = [{"subject": row["subject"], "body": row["body"]} for row in TICKETS]


@pytest.fixture(scope="session")
def make_bundle_of(tiny_model: ModelRef, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., BundleRef]:
    """Train (that is, perturb) a tiny model by a method and bundle it; made once per method and format."""

    made: dict[tuple[Method, Format], BundleRef] = {}

    def make(method: Method = "lora", form: Format = "instruction") -> BundleRef:
        if (method, form) in made:
            return made[method, form]
        root = tmp_path_factory.mktemp(f"{method}-{form}")
        for name in ("trained", "bundle"):
            (root / name).mkdir()
        spec = TrainSpec(
            base_model=tiny_model.uri, method=method, learning_rate=1e-4, dtype="float32", adapter=AdapterSpec(rank=4)
        )
        trained = save_perturbed(tiny_model, spec, root / "trained")
        trained = trained.model_copy(update={"format": form, "digest": seal(trained.root)})
        bundle = bundle_candidate(
            trained=trained, model=tiny_model, name="served", prompt=PROMPT,
            decoding=DECODING, out=root / "bundle",
        )  # fmt: skip
        made[method, form] = bundle.model_copy(update={"digest": seal(bundle.root)})
        return made[method, form]

    return make


@pytest.fixture
def bundle(make_bundle_of: Callable[..., BundleRef]) -> BundleRef:
    return make_bundle_of()


@pytest.fixture
def copied(bundle: BundleRef, tmp_path: Path) -> Path:
    """A copy of the bundle to tamper with."""
    return Path(shutil.copytree(bundle.root, tmp_path / "copied"))


def answers_for_the_gate(bundle: BundleRef, model: ModelRef, folder: Path) -> dict[str, tuple[str, float]]:
    """Answers and losses of tasks/model/generate.py for the tickets, by item."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tasks.model.generate import generate_answers

    serving = ServingSpec.model_validate_json((bundle.root / "serving.json").read_bytes())
    form = serving.trained.format
    queries = [
        dump_messages(messages_for(PROMPT, row)) if form == "instruction" else render_text(PROMPT.user, row)
        for row in TICKETS
    ]
    for name in ("prompts", "answers", "scratch"):
        (folder / name).mkdir()
    columns = {
        "item_id": [str(place) for place in range(len(TICKETS))],
        "messages" if form == "instruction" else "text": queries,
        "answer": [row["reply"] for row in TICKETS],
    }
    pq.write_table(pa.table(columns), folder / "prompts" / "prompts.parquet")
    generate_answers(
        prompts=PromptSet(root=folder / "prompts", arm="tuned", format=form, n_items=len(TICKETS)),
        model=model, decoding=DECODING, trained=serving.trained.model_copy(update={"root": bundle.root}),
        out=folder / "answers", scratch=folder / "scratch",
    )  # fmt: skip
    rows = pq.read_table(folder / "answers" / "predictions.parquet").to_pylist()
    return {row["item_id"]: (row["text"], row["loss"]) for row in rows}


@pytest.mark.parametrize(
    ("method", "form"),
    [("lora", "instruction"), ("lora", "completion"), ("full", "instruction"), ("qlora", "instruction")],
)
def test_a_bundle_answers_as_it_did_for_the_gate(
    make_bundle_of: Callable[..., BundleRef], tiny_model: ModelRef, tmp_path: Path, method: Method, form: Format
) -> None:
    bundle = make_bundle_of(method, form)
    served = load_bundle(bundle.root, base=tiny_model.root)
    gate = answers_for_the_gate(bundle, tiny_model, tmp_path)
    assert dict(enumerate(served.answer(QUESTIONS))) == {int(item): text for item, (text, _) in gate.items()}
    expected = [gate[str(place)][1] for place in range(len(TICKETS))]
    assert served.losses(TICKETS) == pytest.approx(expected, rel=1e-4)


def test_the_adapter_changes_the_answers(bundle: BundleRef, tiny_model: ModelRef) -> None:
    from tasks.model.answer_engine import Engine
    from tasks.model.base_model import load_tokenizer
    from tasks.model.chat_codec import ChatCodec

    served = load_bundle(bundle.root, base=tiny_model.root)
    codec = ChatCodec.of(load_tokenizer(tiny_model), "instruction")
    bare = ServedModel(served.serving, Engine.load(tiny_model, None, DECODING, codec, []))
    assert served.losses(TICKETS) != pytest.approx(bare.losses(TICKETS), rel=1e-2)


@pytest.mark.parametrize(
    ("method", "form"),
    [("lora", "instruction"), ("lora", "completion"), ("full", "instruction"), ("qlora", "instruction")],
)
def test_the_loader_that_mlflow_packs_reads_and_answers_the_same(
    make_bundle_of: Callable[..., BundleRef], tiny_model: ModelRef, method: Method, form: Format
) -> None:
    bundle = make_bundle_of(method, form)
    served, packed = load_bundle(bundle.root, base=tiny_model.root), LoadedModel(bundle.root, base=str(tiny_model.root))
    talk = {"body": None, "messages": dump_messages([*TALK, {"role": "assistant", "content": "On Friday."}])}
    for row in (*QUESTIONS, *([talk] if form == "instruction" else [])):
        assert packed.prompt_ids(row) == served._prompt(row)
    assert packed.predict(QUESTIONS) == served.answer(QUESTIONS)


def test_the_loader_that_mlflow_packs_accepts_frames_texts_and_rows(bundle: BundleRef, tiny_model: ModelRef) -> None:
    import pandas as pd

    packed = LoadedModel(bundle.root, base=str(tiny_model.root))
    answers = packed.predict(QUESTIONS)
    assert packed.predict(pd.DataFrame(QUESTIONS)) == answers
    assert packed.predict(pd.DataFrame(QUESTIONS).convert_dtypes()) == answers
    assert packed.predict(QUESTIONS[2]) == packed.predict(QUESTIONS[2]["body"]) == [answers[2]]
    assert packed.predict([]) == []
    for row, message in (({"body": " "}, "no text in"), ({"body": f"{MARKER} " * 600}, "the context is")):
        with pytest.raises(ValueError, match=message) as caught:
            packed.predict(row)
        assert MARKER not in str(caught.value)


def test_the_loader_that_mlflow_packs_refuses_other_files(
    bundle: BundleRef, copied: Path, tiny_model: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(BASE_VARIABLE, raising=False)
    with pytest.raises(FileNotFoundError, match="set TUNEGATE_BASE_MODEL"):
        LoadedModel(bundle.root)
    base = Path(shutil.copytree(tiny_model.root, tmp_path / "base"))
    (base / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"config\.json has sha256 [0-9a-f]{12}, the model was judged with"):
        LoadedModel(bundle.root, base=str(base))
    (copied / "more.txt").write_text("more")
    with pytest.raises(ValueError, match=r"not judged with: more\.txt"):
        LoadedModel(copied, base=str(tiny_model.root))
    (copied / "more.txt").unlink()
    (copied / "adapter_config.json").write_text("another")
    with pytest.raises(ValueError, match=r"adapter_config\.json has sha256"):
        LoadedModel(copied, base=str(tiny_model.root))


def test_a_ticket_that_cannot_be_answered_is_refused_without_its_text(
    bundle: BundleRef, tiny_model: ModelRef, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    served = load_bundle(bundle.root, base=tiny_model.root)
    with pytest.raises(DataError, match="TG0309") as long:
        served.answer([{"body": f"{MARKER} " * 600}])
    with pytest.raises(DataError, match=r"TG0318.*unknown column 'text'") as strange:
        served.answer([{"text": MARKER}])
    with pytest.raises(DataError, match="TG0315"):
        served.answer([{"subject": " ", "body": None, "reply": MARKER}])
    served.answer([{"body": MARKER}])
    outputs = [str(long.value), str(strange.value), caplog.text, *capfd.readouterr()]
    assert not any(MARKER in text for text in outputs)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "chat_template.jinja"])
def test_another_base_model_is_refused(bundle: BundleRef, tiny_model: ModelRef, tmp_path: Path, name: str) -> None:
    base = Path(shutil.copytree(tiny_model.root, tmp_path / "base"))
    content = bytearray((base / name).read_bytes())
    content[-1] ^= 1
    (base / name).write_bytes(content)
    with pytest.raises(
        SecurityError, match=rf"TG0821.*{name} has sha256 [0-9a-f]{{12}}, .* judged with [0-9a-f]{{12}}"
    ):
        load_bundle(bundle.root, base=base)
    (base / name).unlink()
    with pytest.raises(SecurityError, match=rf"{name} has sha256 nothing"):
        load_bundle(bundle.root, base=base)


def test_extra_files_next_to_the_base_model_change_nothing(
    bundle: BundleRef, tiny_model: ModelRef, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny_model.root, tmp_path / "base"))
    (base / "special_tokens_map.json").write_text('{"eos_token": "a"}')
    (base / "adapter_config.json").write_text("{}")
    expected = load_bundle(bundle.root, base=tiny_model.root).answer(QUESTIONS)
    assert load_bundle(bundle.root, base=base).answer(QUESTIONS) == expected


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "serving.json"])
def test_a_bundle_with_a_changed_missing_or_added_file_is_refused(
    copied: Path, tiny_model: ModelRef, name: str
) -> None:
    assert str(tiny_model.root) not in (copied / name).read_bytes().decode("latin1")  # another machine may serve it
    before = (copied / name).read_bytes()
    (copied / name).write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    with pytest.raises(StorageError, match=f"TG0510.*file changed|{name}"):
        load_bundle(copied, base=tiny_model.root)
    (copied / name).unlink()
    with pytest.raises(StorageError, match=f"TG0510.*missing: {name}"):
        load_bundle(copied, base=tiny_model.root)
    (copied / name).write_bytes(before)
    (copied / "more.txt").write_text("more")
    with pytest.raises(StorageError, match=r"TG0510.*not in the manifest"):
        load_bundle(copied, base=tiny_model.root)


def test_a_bundle_without_a_manifest_or_with_another_serving_json_is_refused(
    copied: Path, tiny_model: ModelRef
) -> None:
    (copied / "MANIFEST.json").unlink()
    with pytest.raises(StorageError, match="TG0510"):
        load_bundle(copied, base=tiny_model.root)
    (copied / "serving.json").write_text('{"name": "served"}')
    seal(copied)
    with pytest.raises(StorageError, match="TG0510"):
        load_bundle(copied, base=tiny_model.root)


def test_a_file_name_that_points_outside_the_folder_is_refused(copied: Path, tiny_model: ModelRef) -> None:
    serving = json.loads((copied / "serving.json").read_text())
    serving["base_files"]["../outside.json"] = "0" * 64
    (copied / "serving.json").write_text(json.dumps(serving))
    seal(copied)
    with pytest.raises(SecurityError, match="TG0821"):
        load_bundle(copied, base=tiny_model.root)
