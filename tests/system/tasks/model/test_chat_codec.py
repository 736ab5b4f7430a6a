"""Messages to ids: the same for training and serving, and no ticket can end a turn."""

import pytest

from schemas.artifacts import ModelRef
from tasks.model.base_model import load_tokenizer
from tasks.model.chat_codec import ChatCodec
from tasks.tickets.prompts import Message

SYSTEM: Message = {"role": "system", "content": "Be kind."}
USER: Message = {"role": "user", "content": "Where is NB-10234?"}
ANSWER: Message = {"role": "assistant", "content": "On its way."}


@pytest.mark.model
def test_smollm2_ids_match_its_template_with_a_line_break_after_the_end(smollm2: ModelRef) -> None:
    codec = ChatCodec.of(load_tokenizer(smollm2), "instruction")
    for turns in ([USER, ANSWER], [SYSTEM, USER, ANSWER], [SYSTEM, USER, ANSWER, USER, ANSWER]):
        own = codec.tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
        assert codec.conversation(turns).input_ids == own[:-1]
    assert "You are a helpful AI assistant named SmolLM" in codec.tokenizer.decode(codec.prompt_ids([USER]))
    assert len(codec.special_ids) == 17
