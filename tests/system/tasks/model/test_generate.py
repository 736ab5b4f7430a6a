"""Batched answers with a shared prefix equal those of a plain loop; a killed run continues."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from schemas.artifacts import ModelRef, Predictions, PromptSet
from schemas.errors import DataError, TrainingError
from schemas.evaluation import DecodingSpec
from schemas.training import AdapterSpec
from tasks.files import seal
from tasks.model.adapter import attach_adapter
from tasks.model.answer_engine import CancelledError, Engine, greedy
from tasks.model.base_model import load_base, load_tokenizer
from tasks.model.chat_codec import ChatCodec
from tasks.model.decoding.decoder import Decoder
from tasks.model.decoding.fused_decoder import FusedDecoder, is_fusable
from tasks.model.decoding.fused_weights import JoinedLinear, packs
from tasks.model.decoding.open_decoder import open_decoder
from tasks.model.decoding.plain_decoder import PlainDecoder
from tasks.model.generate import AnswerJob, each_batch, generate_answers, shared_prefix
from tasks.prompts import dump_messages
from tests.tasks.model.test_generate import BODIES, SPEC, answers, assert_same, prompt_set, rows, stock_answers


@pytest.mark.model
def test_smollm2_answers_like_stock_generate(tmp_path: Path, smollm2: ModelRef) -> None:
    spec = SPEC.model_copy(update={"batch_size": 4})
    prompts = prompt_set(tmp_path / "prompts", n=6)
    assert_same(rows(answers(tmp_path, prompts, smollm2, spec, "a")), stock_answers(smollm2, prompts, spec))


@pytest.mark.model
def test_smollm2_in_bfloat16_stays_close_in_loss(tmp_path: Path, smollm2: ModelRef) -> None:
    prompts = prompt_set(tmp_path / "prompts", n=6)
    exact = rows(answers(tmp_path, prompts, smollm2, SPEC, "a"))
    rounded = rows(answers(tmp_path, prompts, smollm2, SPEC.model_copy(update={"dtype": "bfloat16"}), "b"))
    for one, other in zip(exact, rounded, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=0.02)
