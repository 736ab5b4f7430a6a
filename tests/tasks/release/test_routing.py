"""An answer in service is routed by its version's certificate, and is the same to the last bit with and without one."""

from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML
from starlette.testclient import TestClient

from flows.cli.endpoint import offers
from schemas.artifacts import BundleRef, CertifiedRef, LabelSet, ModelRef
from schemas.evaluation import DecodingSpec
from schemas.training import PromptSpec, TrainSpec
from tasks.assess.label_probability import label_probability
from tasks.model.answer_engine import Engine, Item
from tasks.model.base_model import load_tokenizer
from tasks.model.chat_codec import ChatCodec
from tasks.release.bundle import bundle_candidate
from tasks.release.endpoint import Access, Limits, Tenant, build_endpoint
from tasks.release.live import LiveModels, Offer
from tasks.release.routing import Routing
from tasks.release.serve import load_bundle
from tasks.storage.sealed_folder import seal
from tests.support.candidates import Candidates
from tests.support.trained import save_perturbed
from tests.support.workplace import small_document

QUESTION = "Late: my parcel has not arrived."
SYSTEM = "Answer briefly."
SENTENCE = "nothing certified at a target of 0.95; about 310 more calibration tickets would do"
LIMIT, TEMPERATURE = 12, 4.0
DECODING = DecodingSpec(max_new_tokens=LIMIT, batch_size=1, threads=1, dtype="float32")


def certificate(threshold: float | None, *labels: str) -> tuple[CertifiedRef, LabelSet]:
    """A certificate of a model that writes no label: its first word is one, `TE updat updat...`."""
    pattern = r"^..(?P<category> [a-z]+)"
    certified = CertifiedRef(
        root=Path(), arm="tuned", field="category", target=0.95, confidence=0.95, temperature=TEMPERATURE,
        threshold=threshold, coverage=0.5, n_calibration=200, n_clusters=None, n_routed=100, n_right=99, n_more=None,
        sentence=SENTENCE, curve=(),
    )  # fmt: skip
    return certified, LabelSet(root=Path(), field="category", pattern=pattern, labels=labels)


class Served:
    """Versions of the same weights, which differ in their certificates alone."""

    def __init__(self, folder: Path, model: ModelRef) -> None:
        spec = TrainSpec.model_validate({"base_model": "x", "dtype": "float32", "learning_rate": 1e-4})
        self.folder, self.model = folder, model
        self.trained = save_perturbed(model, spec, folder / "trained", seed=3)
        self.offered: dict[str, Offer] = {}
        models = LiveModels(lambda: self.offered)
        app = build_endpoint(
            [Tenant(models, redact=list)], limits=Limits(max_tokens=64), access=Access(hosts=("testserver",))
        )
        self.client = TestClient(app)
        self.offer("plain", None)
        self.answer = text_of(self.ask("plain"))
        self.labels = (self.answer[2:8], " cat", " dog")

    def offer(self, name: str, certified: tuple[CertifiedRef, LabelSet] | None, *, user: str = "{body}") -> None:
        out = self.folder / name
        out.mkdir()
        known = {} if certified is None else {"certificate": certified[0], "labels": certified[1]}
        prompt = PromptSpec(system=SYSTEM, user=user)
        bundle_candidate(
            out, trained=self.trained, model=self.model, name="replies", prompt=prompt, decoding=DECODING, **known
        )
        self.offered[name] = Offer("1", "PROMOTE", self.model, BundleRef(root=out, digest=seal(out), n_bytes=1))

    def ask(self, model: str, *turns: dict[str, str], **more: Any) -> dict[str, Any]:
        answer = self.client.post("/v1/chat/completions", json=asked(model, *turns, **more))
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def stream(self, model: str, **more: Any) -> list[dict[str, Any]]:
        lines = self.client.post("/v1/chat/completions", json=asked(model, stream=True, **more)).text.split("\n\n")
        return [orjson.loads(line.removeprefix("data: ")) for line in lines if line and "[DONE]" not in line]


def asked(model: str, *turns: dict[str, str], **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [*turns, {"role": "user", "content": QUESTION}], **more}


def text_of(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["message"]["content"])


@pytest.fixture(scope="module")
def served(tiny_model: ModelRef, tmp_path_factory: pytest.TempPathFactory) -> Served:
    made = Served(tmp_path_factory.mktemp("served"), tiny_model)
    made.offer("all", certificate(0.0, *made.labels))
    made.offer("sure", certificate(1.0, *made.labels))
    made.offer("nothing", certificate(None, *made.labels))
    made.offer("foreign", certificate(0.0, "cat", "dog"))
    return made


def test_a_version_routes_by_its_own_certificate_and_all_answer_alike(served: Served) -> None:
    answers = {name: served.ask(name) for name in served.offered}
    assert {text_of(answer) for answer in answers.values()} == {served.answer}
    routed = {name: answer.get("tunegate") for name, answer in answers.items()}
    assert routed["plain"] is None
    probability = routed["all"]["probability"]
    assert 0 < probability < 1
    assert routed["all"] == {
        "action": "route", "probability": probability,
        "reason": f"probability {probability:.4f} is at least the certified 0.0000",
    }  # fmt: skip
    assert routed["sure"]["action"] == "review"
    assert routed["sure"]["reason"] == f"probability {probability:.4f} is below the certified 1.0000"
    assert routed["nothing"] == {"action": "review", "probability": probability, "reason": SENTENCE}
    assert routed["foreign"] == {
        "action": "review", "probability": None,
        "reason": "the answer has no category of which the probability is known",
    }  # fmt: skip
    [*_, last] = served.stream("all")
    assert last["tunegate"] == routed["all"]


def test_the_probability_is_that_of_the_run_that_certified(served: Served, tiny_model: ModelRef) -> None:
    codec = ChatCodec.of(load_tokenizer(tiny_model), "instruction")
    _, labels = certificate(0.0, *served.labels)
    engine = Engine.load(tiny_model, served.trained, DECODING, codec, [], labels)
    turns = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
    other = codec.prompt_ids([{"role": "user", "content": "A longer text that is in the same batch."}])
    prompts = [codec.prompt_ids(turns), other]
    [answer, _] = engine.answer([Item(str(at), prompt, [codec.end_id]) for at, prompt in enumerate(prompts)])
    assert answer.text == served.answer
    assert answer.label_logs is not None
    probability = label_probability(answer.label_logs, 0, TEMPERATURE)
    assert served.ask("all")["tunegate"]["probability"] == pytest.approx(probability, rel=1e-4)


def test_a_loaded_bundle_routes_as_the_endpoint_does(served: Served, tiny_model: ModelRef) -> None:
    for name, offer in served.offered.items():
        loaded, expected = load_bundle(offer.bundle.root, base=tiny_model.root), served.ask(name).get("tunegate")
        [(text, routing), _] = loaded.answer_routed([{"body": QUESTION}, {"body": "A longer text in the same batch."}])
        assert text == served.answer
        if expected is None:
            assert routing is None
            continue
        assert routing is not None
        assert (routing.action, routing.reason) == (expected["action"], expected["reason"])
        assert routing.probability == (expected["probability"] and pytest.approx(expected["probability"], rel=1e-4))


def test_metrics_count_the_answers_of_versions_with_a_certificate_by_action(served: Served) -> None:
    def counted() -> dict[str, float]:
        families = text_string_to_metric_families(served.client.get("/metrics").text)
        samples = [each for family in families for each in family.samples if each.name == "tunegate_answers_total"]
        assert {(each.labels["name"], each.labels["version"]) for each in samples} <= {("replies", "1")}
        return {each.labels["action"]: each.value for each in samples}

    before = {"route": 0.0, "review": 0.0} | counted()
    served.ask("plain")
    assert {"route": 0.0, "review": 0.0} | counted() == before
    served.ask("sure")
    assert counted() == before | {"review": before["review"] + 1}
    served.ask("all")
    served.stream("all")
    assert counted() == {"route": before["route"] + 2, "review": before["review"] + 1}


def test_a_ticket_without_a_column_of_the_prompt_goes_to_review(served: Served, tiny_model: ModelRef) -> None:
    served.offer("columns", certificate(0.0, *served.labels), user="{body}{product}{channel}")
    loaded = load_bundle(served.offered["columns"].bundle.root, base=tiny_model.root)
    whole = {"body": QUESTION, "product": None, "channel": None}
    [(text, routed), (same, unknown)] = loaded.answer_routed([whole, {"body": QUESTION, "product": None}])
    assert text == same == served.answer
    assert isinstance(routed, Routing)
    assert isinstance(unknown, Routing)
    assert routed.action == "route"
    assert (unknown.action, unknown.probability) == ("review", routed.probability)
    assert unknown.reason == "certified are answers to a prompt with channel, which was not given"
    del served.offered["columns"]


def test_an_answer_that_was_not_certified_goes_to_review(served: Served) -> None:
    def reason(**more: Any) -> str:
        turns = more.pop("turns", ())
        routing = served.ask("all", *turns, **more)["tunegate"]
        assert routing["action"] == "review"
        return str(routing["reason"])

    assert served.ask("all", {"role": "system", "content": SYSTEM})["tunegate"]["action"] == "route"
    assert "the request has another" in reason(turns=[{"role": "system", "content": "Always say dog."}])
    plain = served.client.post("/v1/completions", json={"model": "all", "prompt": QUESTION}).json()["tunegate"]
    assert (plain["action"], "in a chat" in plain["reason"]) == ("review", True)
    assert reason(stop=served.answer[6:9]) == "a stop text of the request cut the answer"
    assert reason(max_tokens=LIMIT - 3) == f"certified are answers with a limit of {LIMIT} tokens"
    assert reason(max_tokens=LIMIT + 3) == f"certified are answers with a limit of {LIMIT} tokens"


def test_likelihoods_of_tokens_are_in_openais_form_and_change_no_answer(served: Served, tiny_model: ModelRef) -> None:
    answer = served.ask("plain", logprobs=True, top_logprobs=3)
    assert text_of(answer) == served.answer
    [choice] = answer["choices"]
    logs = choice["logprobs"]["content"]
    assert choice["logprobs"]["refusal"] is None
    assert len(logs) == answer["usage"]["completion_tokens"] - (choice["finish_reason"] == "stop")
    codec = ChatCodec.of(load_tokenizer(tiny_model), "instruction")
    prompt = codec.prompt_ids([{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}])
    engine = Engine.load(tiny_model, served.trained, DECODING, codec, [])
    with torch.inference_mode():
        reading = engine.decoder.read([prompt], room=LIMIT)
        for each in logs:
            wanted = torch.log_softmax(reading.next_logits()[0].float(), -1).topk(3)
            token = int(wanted.indices[0])
            assert each["token"] == codec.tokenizer.decode([token])
            assert each["logprob"] == pytest.approx(float(wanted.values[0]), abs=1e-3)
            assert [top["logprob"] for top in each["top_logprobs"]] == pytest.approx(wanted.values.tolist(), abs=1e-3)
            assert each["bytes"] == (None if "\ufffd" in each["token"] else list(each["token"].encode()))
            reading.append(reading.next_tokens())

    chunks = [chunk["choices"][0] for chunk in served.stream("plain", logprobs=True)]
    streamed = [each for chunk in chunks for each in (chunk["logprobs"] or {"content": []})["content"]]
    assert [each["logprob"] for each in streamed] == [each["logprob"] for each in logs]
    assert all(each["top_logprobs"] == [] for each in streamed)
    assert "".join(chunk["delta"].get("content", "") for chunk in chunks) == served.answer

    stop = served.answer[6:9]
    cut = served.ask("plain", logprobs=True, stop=stop)
    shown = cut["choices"][0]["logprobs"]["content"]
    assert 0 < len(shown) < len(logs)
    assert text_of(cut) == served.answer[: served.answer.index(stop)]
    assert served.ask("plain")["choices"][0]["logprobs"] is None
    refused = served.client.post("/v1/chat/completions", json=asked("plain", top_logprobs=2))
    assert (refused.status_code, refused.json()["error"]["message"]) == (
        400, "messages: Value error, `top_logprobs` needs `logprobs: true`",
    )  # fmt: skip


def test_a_threshold_belongs_to_its_version_and_a_rollback_brings_it_back(
    served: Served, tiny_model: ModelRef, tmp_path: Path
) -> None:
    document = small_document(str(tiny_model.root))
    document["pipelines"]["small"]["evaluate"] |= {"max_new_tokens": LIMIT, "dtype": "float32"}
    with (tmp_path / "pipelines.yaml").open("w") as stream:
        YAML().dump(document, stream)
    candidates = Candidates(tmp_path, tiny_model)
    ledger = candidates.ledger
    for seed, threshold in ((1, 0.25), (2, 0.75)):
        candidates.add(seed, certified=certificate(threshold, "cat", "dog"))
    models = LiveModels(lambda: offers(ledger, "small", candidates=False))

    def thresholds() -> list[float | None]:
        champion, live = ledger.champion("small"), models.find("champion")
        assert champion is not None
        assert live is not None
        assert champion.certificate is not None
        assert live.serving.certificate == champion.certificate
        return [champion.certificate.threshold]

    assert thresholds() == [0.75]
    ledger.rollback("small", reason="worse", to=None, actor="ann", cooldown_days=0)
    assert thresholds() == [0.25]
