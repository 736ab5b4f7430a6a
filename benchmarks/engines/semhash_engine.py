"""semhash with wordllama's static embeddings, the one encoder that comes inside a wheel.

It judges meaning, not words, at a cosine of 0.97: beside an oracle of shared words its accuracy only indicates.
"""

from __future__ import annotations

from pathlib import Path

import wordllama
from semhash import SemHash
from shared import arguments, join_pairs, read_texts, write_answer
from wordllama import WordLlama

COSINE = 0.97

if __name__ == "__main__":
    _, corpus, answer = arguments()
    texts = read_texts(corpus)

    class Encoder:
        """The protocol semhash asks for."""

        _model = WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)

        def encode(self, inputs, **_):
            """Vectors of the texts."""
            return self._model.embed(list(inputs))

    records = [{"id": str(number), "text": text} for number, text in enumerate(texts)]
    result = SemHash.from_records(records, columns=["text"], model=Encoder()).self_deduplicate(threshold=COSINE)
    pairs = [(int(found.record["id"]), int(found.duplicate_of["id"])) for found in result.filtered]
    write_answer(answer, "cluster", join_pairs(len(texts), pairs))
