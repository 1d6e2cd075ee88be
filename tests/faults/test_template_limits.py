"""S7: chat templates that loop, grow or reach out without end are stopped, at once and the same way everywhere."""

# ruff: noqa: E501 - a template is one line

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from headwater.cli import main
from headwater.data import template_limits
from headwater.data.templates import CHATML, PLAIN
from headwater.data.tokenizers import Tokenizer, load_tokenizer
from headwater.errors import ModelError

pytestmark = pytest.mark.fault("S7")

TALK = [[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]]
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}"
STOPPED = {
    "endless": ENDLESS,
    "filtered": "{% for a in range(99999) %}{% for b in range(99999) if false %}{% endfor %}{% endfor %}",
    "range": "{{ range(10**9)|list }}",
    "pow": "{{ 10**10**10 }}",
    "pow2": "{{ 9**9**9 }}",
    "mul": "{{ 'a'*10**10 }}",
    "center": "{{ 'a'|center(10**10) }}",
    "center2": "{{ 'a'.center(10**12) }}",
    "zfill": "{{ 'a'.zfill(10**12) }}",
    "fmt": "{{ '%1000000000d' % 1 }}",
    "fmt2": "{{ '{:>1000000000}'.format(1) }}",
    "fmt3": "{{ '{:{w}}'.format(1,w=10**9) }}",
    "fmt4": "{{ '%*d' % (10**9,1) }}",
    "fmt5": "{{ '%1000000000d'|format(1) }}",
    "concat doubling": "{% set ns=namespace(s='a') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "plus doubling": "{% set ns=namespace(s='a') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "block doubling": "{% set ns=namespace(s='a') %}{% for i in range(60) %}{% set x %}{{ns.s}}{{ns.s}}{% endset %}{% set ns.s = x %}{% endfor %}",
    "replace": "{{ ('a'*1000000).replace('a','b'*1000000) }}",
    "replace2": "{{ ('a'*1000000)|replace('a','b'*1000000) }}",
    "join": "{{ ('x'*1000000).join('a'*100000) }}",
    "join2": "{{ ('a'*100000)|join('x'*1000000) }}",
    "list bomb": "{% set ns=namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = [ns.s,ns.s] %}{% endfor %}{{ ns.s }}",
    "dict bomb": "{% set ns=namespace(s={'a':1}) %}{% for i in range(60) %}{% set ns.s = {'a':ns.s,'b':ns.s} %}{% endfor %}{{ ns.s|tojson }}",
    "dict call bomb": "{% set ns=namespace(s={'a':1}) %}{% for i in range(60) %}{% set ns.s = dict(a=ns.s,b=ns.s) %}{% endfor %}{{ ns.s|tojson }}",
    "ns bomb": "{% set ns=namespace(s=1) %}{% for i in range(60) %}{% set ns.s = namespace(a=ns.s,b=ns.s) %}{% endfor %}{{ ns.s }}",
    "cycle": "{% set ns=namespace(s=1) %}{% set ns.s=[ns] %}{{ ns }}",
    "recursion": "{% macro m(n) %}{{ m(n) }}{{ m(n) }}{% endmacro %}{{ m(1) }}",
    "branching": "{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(200) }}",
    "recursive loop": "{% for a in [range(99999)] recursive %}{% for b in a %}{{ loop.index }}{% endfor %}{{ loop([a]) }}{% endfor %}",
    "escape": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "escape2": "{{ messages.append(1) }}",
    "escape3": "{{ (messages|attr('__class__')) .x}}",
    "escape4": "{{ cycler.__init__.__globals__ }}",
    "deep": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "deep2": "{% if 1 %}" * 400 + "{% endif %}" * 400,
    "syntax": "{% for %}",
    "unknown filter": "{{ 1|pprint }}",
    "big const loop": "{% for a in range(99999) %}{% for b in range(99999) %}"
    + "x" * 500_000
    + "{% endfor %}{% endfor %}",
    "indent": "{{ ('\n'*100000)|indent(100000) }}",
    "tojson indent": "{{ messages|tojson(indent=100000000) }}",
    "batch": "{{ [1]|batch(10**9, 0)|list }}",
    "slice": "{{ [1]|slice(10**9)|list }}",
    "expandtabs": "{{ ('\t'*100000).expandtabs(100000) }}",
    "ljust": "{{ 'a'.ljust(width=10**10) }}",
    "cmp": "{% set ns=namespace(s=[1],t=[1]) %}{% for i in range(60) %}{% set ns.s = [ns.s,ns.s] %}{% set ns.t=[ns.t,ns.t] %}{% endfor %}{{ ns.s==ns.t }}",
    "map": "{{ range(99999)|map('string')|map('center',999999)|list|length }}",
    "translate": "{{ 'aaa'.translate({97:'b'*1000}) }}",
    "encode": "{{ ('a'*1000000).encode().hex() }}",
    "bytes": "{{ 'a'.encode() * 10**10 }}",
    "bytes2": "{{ 'a'.encode().center(10**10) }}",
    "shift": "{{ 1 in range(10**15) }}",
    "to_bytes": "{{ (1).to_bytes(10**10, 'big') }}",
    "setop": "{{ messages[0].setdefault('x',1) }}",
    "strftime": "{{ strftime_now('%Y'*1000000) }}",
    "unary": "{{ -(10**3000) }}",
    "sub": "{{ (10**2000)*(10**2000)*(10**2000) }}",
}


@pytest.fixture(autouse=True)
def installed() -> None:
    template_limits.install()


@pytest.mark.parametrize("name", STOPPED)
def test_it_is_stopped_in_one_line(name: str) -> None:
    began = time.process_time()
    with pytest.raises(ModelError, match=r"^chat template") as caught:
        render_jinja_template(TALK, chat_template=STOPPED[name])
    assert "\n" not in str(caught.value) and caught.value.exit_code == 4
    assert time.process_time() - began < 15


@pytest.mark.parametrize("template", ["{{ 1/0 }}", "{{ 1 + 'a' }}", "{{ a.b.c }}", "{{ raise_exception('no') }}"])
def test_every_other_error_is_a_template_error(template: str) -> None:
    with pytest.raises(TemplateError):
        render_jinja_template(TALK, chat_template=template)


USUAL = {
    "chatml": CHATML,
    "tracks and strips": (
        "{%- set ns = namespace(last=-1, system='') %}{% for m in messages %}{% if m.role == 'user' %}"
        "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}"
        "{% if m['role'] == 'user' and loop.index0 == ns.last %}<u>{{ m.content | trim }}"
        "{% elif m.role == 'assistant' %}{% set c = m.content.split('</think>')[-1].lstrip('\n') %}<a>{{ c }}"
        "{% else %}{{ '<|im_start|>' + m.role + '\n' ~ m.content + '\n' }}{% endif %}"
        "{% if loop.last %}{{ messages | length }}{{ messages[1:] | map(attribute='role') | join(',') }}{% endif %}"
        "{% endfor %}{{ messages | selectattr('role', 'equalto', 'user') | list | tojson }}"
    ),
    "macros and tools": (
        "{% macro show(items, depth=0) %}{% for k, v in items.items() %}{{ ' ' * depth }}{{ k }}: {{ v | string }}\n"
        "{% endfor %}{% endmacro %}{% for m in messages recursive %}{{ show(m) }}{% endfor %}"
        "{{ '%s-%s' % (1, 2) }}{{ '{} {}'.format('a', 3) }}{{ messages | tojson(indent=4) }}{{ [1, 2] + [3] }}"
        "{% set x %}{{ messages[0].content | upper | replace('H', 'h') }}{% endset %}{{ x ~ (x in 'xhi') }}"
    ),
    "generation": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
        "{% else %}{{ m.content }}{% endif %}{% endfor %}{% for a in [1, 2, 3] if a > 1 %}{{ a }}{% break %}{% endfor %}"
    ),
}


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("name", USUAL)
def test_usual_templates_render_as_without_limits(name: str, mask: bool) -> None:
    from transformers.utils import chat_template_utils as library

    limited = library._cached_compile_jinja_template
    given = {"chat_template": USUAL[name], "return_assistant_tokens_mask": mask, "add_generation_prompt": not mask}
    found = render_jinja_template(TALK, **given)
    assert isinstance(library._compile_jinja_template(USUAL[name]).environment, template_limits._Limited)
    library._compile_jinja_template.cache_clear()
    library._cached_compile_jinja_template = limited.__closure__[0].cell_contents
    try:
        assert found == render_jinja_template(TALK, **given)
    finally:
        library._cached_compile_jinja_template = limited
        library._compile_jinja_template.cache_clear()


def test_long_conversations_have_a_budget_to_match() -> None:
    turn = [{"role": "user", "content": "x" * 500}, {"role": "assistant", "content": "y" * 500}]
    for talk in (turn * 500, [{"role": "user", "content": "x" * 3_000_000}, turn[1]]):
        assert len(render_jinja_template([talk], chat_template=USUAL["tracks and strips"])[0][0]) > 100_000


@pytest.mark.parametrize("broken", ["{% for %}", ENDLESS, "{{ ''.__class__.__mro__[1].__subclasses__() }}"])
def test_the_command_line_ends_with_4(
    broken: str, tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text(broken)
    data = tmp_path / "pairs.jsonl"
    data.write_text(json.dumps({"prompt": "p", "chosen": "a b", "rejected": "c d"}) + "\n")
    assert main(["tokens", str(data), "--model", str(tmp_path / "model")]) == 4
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and "chat template" in printed


def test_a_tokenizer_with_a_usual_template_loads(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path / "model")
    loaded = load_tokenizer(str(tmp_path / "model"), ())
    assert loaded.apply_chat_template(TALK[0], tokenize=False) == tokenizer.apply_chat_template(TALK[0], tokenize=False)
    template_limits.check_templates({"default": CHATML, "tool_use": PLAIN})
    with pytest.raises(ModelError, match="line 1 · cannot be compiled"):
        template_limits.check_templates({"default": CHATML, "tool_use": "{% for %}"})
