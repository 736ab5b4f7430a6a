"""`tunegate predict`: what it checks before a model answers, and what it says of the answer."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from schemas.artifacts import ModelRef
from tasks.release.serve import load_bundle
from tasks.tickets.visible import visible
from tests.support.candidates import Candidates
from tests.support.commands import run_here
from tests.support.place import Place
from tests.support.workplace import small_document
from tests.tasks.release.test_routing import LIMIT, certificate

TICKET = "My parcel has not arrived."


def test_an_empty_ticket_is_refused(refusal: Callable[..., str], place: Place, tmp_path: Path) -> None:
    place.promote(1, after=None)
    (tmp_path / "ticket").write_text(" \n")
    assert "error[TG0164]" in refusal("predict", "replies", "--file", "ticket", TUNEGATE_HOME=str(place.home))


@pytest.mark.timeout(60)
def test_an_endless_or_huge_ticket_is_refused_at_once(
    refusal: Callable[..., str], place: Place, tmp_path: Path
) -> None:
    place.promote(1, after=None)
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large").open("wb") as large:
        large.truncate(1 << 40)
    for file, why in (("pipe", "a pipe, a device"), ("/dev/zero", "a pipe, a device"), ("large", "more than 16 MiB")):
        error = refusal("predict", "replies", "--file", file, TUNEGATE_HOME=str(place.home))
        assert "error[TG0110]" in error
        assert why in error


@pytest.mark.parametrize("known", [True, False])
def test_a_certificate_says_whether_a_person_looks_at_the_answer(
    tiny_model: ModelRef, tmp_path: Path, known: bool
) -> None:
    plain, certified = tmp_path / "plain", tmp_path / "certified"
    for folder in (plain, certified):
        folder.mkdir()
        document = small_document(str(tiny_model.root))
        document["pipelines"]["small"]["evaluate"] |= {"max_new_tokens": LIMIT, "dtype": "float32"}
        with (folder / "pipelines.yaml").open("w") as stream:
            YAML().dump(document, stream)
        (folder / "ticket.txt").write_text(TICKET)

    def predict(folder: Path, *options: str) -> str:
        environ = {**os.environ, "TUNEGATE_HOME": str(folder / ".tunegate")}
        words = ("predict", "small", "--file", "ticket.txt", "--subject", "Late", *options)
        done = run_here(words, cwd=folder, environ=environ)
        assert done.returncode == 0, done.stderr
        return done.stdout

    Candidates(plain, tiny_model).add(1)
    answer = json.loads(predict(plain, "--json"))
    reply = answer["reply"]
    assert answer == {"name": "small", "version": "1", "reply": reply}
    assert predict(plain) == f"{visible(reply)}\n"

    candidates, of_class = Candidates(certified, tiny_model), certificate(0.0, "cat", "dog")
    if known:
        own = {"pattern": r"(?s)^(?P<category>.{4})", "labels": (reply[:4], " cat", " dog")}
        labels = of_class[1].model_copy(update=own)
        of_class = (of_class[0], labels)
    candidates.add(1, certified=of_class)
    champion = candidates.ledger.champion("small")
    assert champion is not None
    [(same, routing)] = load_bundle(champion.bundle.root, base=champion.model.root).answer_routed(
        [{"subject": "Late", "body": TICKET}]
    )
    assert same == reply
    assert routing is not None
    if not known:
        assert (routing.action, routing.probability) == ("review", None)
    assert json.loads(predict(certified, "--json")) == answer | routing.to_json()
    probability = "" if routing.probability is None else f" (probability {routing.probability:.4f})"
    assert predict(certified) == f"{visible(reply)}\n{routing.action}{probability}: {routing.reason}\n"
