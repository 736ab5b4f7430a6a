"""Chat templates are rendered as transformers renders them, and none takes the machine."""

import resource
import time

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from schemas.artifacts import ModelRef
from schemas.chat_template import families
from schemas.errors import TunegateError
from tasks.model.base_model import load_tokenizer
from tasks.model.chat_codec import ChatCodec
from tasks.model.limited_template import MAX_CHARS, TemplateTooCostly, render_limited
from tasks.tickets.prompts import Message
from tests.support.project import PROJECT

TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
CONVERSATION: list[Message] = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Where is\nNB-10234? " * 40},
    {"role": "assistant", "content": "On its way.\n"},
]
EVERYTHING = """\
{%- set ns = namespace(found=false, text='', parts=[]) -%}
{%- for message in messages if message.role != 'tool' recursive -%}
  {%- set content = message.content.split('</think>')[-1].lstrip('\\n') if message.content is string else '' -%}
  {%- if loop.first and not ns.found %}{{ bos_token ~ loop.length ~ [1, 'a'] ~ {'a': (1, none)} }}{% endif -%}
  {%- set ns.text = ns.text + content|trim|replace('NB', 'XY') -%}
  {%- set ns.parts = ns.parts + [message['role']|upper ~ loop.index0] -%}
  {{- '<|' + message.role + '|>' ~ content|indent(2) ~ loop.cycle('a', 'b') ~ (loop.previtem.role if loop.previtem) -}}
  {%- set captured %}{{ content[:5]|center(20) }}{% endset %}[{{ captured }}]
  {%- if loop.last %}{{ eos_token * 2 }}{% endif -%}
{%- endfor -%}
{%- macro joined(items, by=', ') %}{{ items|join(by) }}/{{ by.join(items|map('lower')|list) }}{% endmacro -%}
{{ joined(ns.parts) }} {{ ns.text|length }} {{ '%s-%03d' % ('a', 7) }} {{ '{:>5}'.format('b') }} {{ 2 ** 10 }}
{%- for key, value in messages[0].items() %}{{ key }}={{ value|tojson }};{% else %}none{% endfor -%}
{%- for n in range(3) %}{% if n == 1 %}{% continue %}{% endif %}{{ n }}{% endfor -%}
{{- missing }}{{ missing|default('x') }}{{ tools is none }}{{ [3, 1, 2]|sort|first }}{{ 'a' in ['a'] }}{{ 1 + 2 }}
{%- generation %}{{ messages[-1].content }}{% endgeneration %}{{ add_generation_prompt }}
"""
MUCH = "{% set x = 'x' * 1000000 %}"
DOUBLING = "{% set n = namespace(t='x') %}{% for i in range(99) %}{% set n.t = STEP %}{% endfor %}{{ n.t }}"
LARGE = "0x" + "f" * 400_000
BOMBS = (
    "{{ messages[0].content * 100000000 }}",
    "{{ 'x' * 9000000000 }}",
    "{{ [1] * 10**10 }}",
    "{{ ([1] * 1000000) * 1000000 }}",
    DOUBLING.replace("STEP", "n.t + n.t"),
    DOUBLING.replace("STEP", "n.t ~ n.t"),
    DOUBLING.replace("STEP", "[n.t, n.t]"),
    DOUBLING.replace("STEP", "{'a': n.t, 'b': (n.t,)}").replace("{{ n.t }}", "{{ n.t ~ n.t }}"),
    DOUBLING.replace("STEP", "namespace(a=n.t, b=n.t)"),
    DOUBLING.replace("STEP", "n.t.replace('x', 'xx')"),
    DOUBLING.replace("STEP", "n.t|replace('x', 'xx')"),
    DOUBLING.replace("{% set n.t = STEP %}", "{% set n.t %}{{ n.t }}{{ n.t }}{% endset %}"),
    "{{ 'x'|center(10**10) }}", "{{ 'x'.ljust(10**10) }}", "{{ range(99999)|map('center', 10**7)|list }}",
    "{{ '%10000000000d' % 1 }}", "{{ '%*d' % (10**10, 1) }}", "{{ '{:>10000000000}'.format(1) }}",
    "{{ '{:>{}}'.format(1, 10**10) }}", "{{ '%10000000000d'|format(1) }}", "{{ 99 ** (99 ** 99) }}",
    MUCH + "{{ x.replace('x', x) }}", MUCH + "{{ x|replace('x', x) }}",
    MUCH + "{{ x.join(range(99999)|map('string')) }}", MUCH + "{{ range(99999)|map('string')|join(x) }}",
    MUCH + "{{ [x, x, x, x, x, x, x]|join|list|tojson }}",
    "{% set x = '\t' * 1000000 %}{{ x.expandtabs(10**6) }}", "{{ range(99999)|list|tojson(indent=10**6) }}",
    MUCH + "{% for i in range(99999) %}{{ x }}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{{ range(99999)|map('string')|join|length }}{% for i in range(99999) %}{{ range(9999)|sum }}{% endfor %}",
    "{% for i in range(99999) %}{{ 'a' in range(99999)|list }}{% endfor %}",
    "{% macro m(n) %}{% for i in range(50) %}{{ m(n-1) if n else '' }}{% endfor %}{% endmacro %}{{ m(50) }}",
    "{% for x in range(99999) recursive %}{{ loop(range(99999)) if loop.depth < 9 }}{% endfor %}",
    *(f"{{% set a = 2**5000000 {operator} (2**2500000 + 1) %}}" for operator in ("//", "%")),
    "{% set a = 3**6000000 * 3**6000000 %}", DOUBLING.replace("'x'", "2").replace("STEP", "n.t * n.t"),
    *(DOUBLING.replace("'x'", "1").replace("99", "20000").replace("STEP", n) for n in ("n.t + n.t", "n.t - (-n.t)")),
    f"{{{{ {LARGE} // 3 }}}}", f"{{{{ {LARGE} is divisibleby({LARGE[:200_000]}) }}}}",
    "{% set s %}{% for i in range(200, 5000) %}{{ '%c' % i }}{% endfor %}{% endset %}{{ s.encode('punycode') }}",
    "{{ 5|round(-10000000) }}", "{{ 5|round(10000000, 'floor') }}", "{{ (5).to_bytes(2000000000, 'big') }}",
)  # fmt: skip
REFUSED = ("{% for x in range(10**9) %}{% endfor %}", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{{ 1 // 0 }}")


def read(family: str) -> str:
    return (PROJECT / "schemas" / "chat_templates" / f"{family}.jinja").read_text()


@pytest.mark.parametrize("template", [*map(read, families()), EVERYTHING], ids=[*families(), "everything"])
@pytest.mark.parametrize("generation", [True, False])
def test_the_text_is_that_of_transformers(template: str, generation: bool) -> None:
    for turns in (CONVERSATION, CONVERSATION[1:], CONVERSATION[1:2]):
        wanted, _ = render_jinja_template([turns], chat_template=template, add_generation_prompt=generation, **TOKENS)
        assert render_limited(template, turns, {**TOKENS, "add_generation_prompt": generation}) == wanted[0]


@pytest.mark.parametrize("bomb", BOMBS)
def test_no_template_takes_the_machine(monkeypatch: pytest.MonkeyPatch, bomb: str) -> None:
    monkeypatch.setattr("tasks.model.limited_template.TIMEOUT_S", 0.3)
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(TemplateTooCostly):
        render_limited(bomb, CONVERSATION, TOKENS)
    assert time.process_time() - begun < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * MAX_CHARS / 1024


@pytest.mark.parametrize(("bomb", "code"), [(BOMBS[0], "TG0173"), *((each, "TG0314") for each in REFUSED)])
def test_a_template_that_is_costly_only_for_some_conversations_is_a_named_error_when_encoding(
    tiny_model: ModelRef, bomb: str, code: str
) -> None:
    tokenizer = load_tokenizer(tiny_model)
    plain = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    plain += "{% if add_generation_prompt %}<|im_start|>{% endif %}"
    tokenizer.chat_template = f"{{% if messages[0].content == 'Boom' %}}{bomb}{{% endif %}}{plain}"
    codec = ChatCodec.of(tokenizer, "instruction")
    with pytest.raises(TunegateError, match=code):
        codec.prompt_ids([{"role": "user", "content": "Boom"}])
    assert codec.prompt_ids([{"role": "user", "content": "Hello"}])


def test_a_long_conversation_has_a_larger_budget() -> None:
    turns: list[Message] = [{"role": "user", "content": "x" * 3_000_000}]
    template = "{% for m in messages %}" + "{% set y = m.content|trim|replace('x', 'y') %}" * 20 + "{{ y }}{% endfor %}"
    assert render_limited(template, turns, TOKENS) == "y" * 3_000_000
