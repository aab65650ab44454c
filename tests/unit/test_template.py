"""Templates come with models: what transformers renders renders here, what fails is refused."""

import pytest
from jinja2 import TemplateError

from api.requests.template import ChatTemplate, TemplateRefused, TemplateTooSlow

HELLO = [{"role": "user", "content": "hello"}]


def test_the_generation_tag_is_just_its_body() -> None:
    source = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    assert ChatTemplate(source, {}).render(HELLO) == "hello"


@pytest.mark.parametrize(
    "source",
    ["{{ raise_exception('no') }}", "{{ 1 / 0 }}", "{{ messages[0].content.missing.field }}"],
)
def test_a_template_that_fails_refuses_the_messages(source: str) -> None:
    with pytest.raises(TemplateRefused):
        ChatTemplate(source, {}).render(HELLO)


def test_a_template_cannot_leave_its_sandbox() -> None:
    source = "{{ messages.__class__.__mro__ }}"
    with pytest.raises(TemplateRefused):
        ChatTemplate(source, {}).render(HELLO)


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(10000) %}{% for b in range(10000) %}{% for c in range(10000) %}"
        "{% endfor %}{% endfor %}{% endfor %}",
        "{% macro two(n) %}{{ two(n - 1) ~ two(n - 1) if n }}{% endmacro %}{{ two(60) }}",
        "{% for a in range(9) recursive %}{{ loop(range(9)) if loop.depth < 99 }}{% endfor %}",
        "{% set __until = 1e300 %}{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}"
        "{% endfor %}",
        "{% macro m() %}{% for a in range(9999) if range(9999) | sum < 0 %}{% endfor %}"
        "{% endmacro %}{% for b in range(9999) if m() %}{% endfor %}",
    ],
)
def test_a_template_that_goes_on_for_ever_is_stopped(source: str) -> None:
    with pytest.raises(TemplateTooSlow):
        ChatTemplate(source, {}).render(HELLO, limit_s=0.05)


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 999999999 }}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ [1] * 9999999 }}",
        "{{ range(10 ** 9) }}",
        "{% set n = namespace(s='a' * 99999) %}{% for i in range(99) %}{% set n.s = n.s + n.s %}"
        "{% endfor %}",
        "{% set n = namespace(s='a' * 99999) %}{% for i in range(99) %}{% set n.s = n.s ~ n.s %}"
        "{% endfor %}",
        "{% set s = 'a' * 99999 %}{{ s.replace('a', s) }}",
        "{% set s = 'a' * 99999 %}{{ s | replace('a', s) }}",
        "{% set s = 'a' * 99999 %}{{ range(9999) | join(s) }}{{ s.join(['b'] * 9999) }}",
        "{% macro m() %}{% for i in range(9999) %}{{ 'a' * 9999 }}{% endfor %}{% endmacro %}"
        "{{ m() }}",
        "{{ 'a' | indent(99999999) }}",
    ],
)
def test_a_template_that_makes_something_huge_is_refused(source: str) -> None:
    with pytest.raises(TemplateRefused, match="too large"):
        ChatTemplate(source, {}).render(HELLO)


def test_loops_know_where_they_are() -> None:
    source = "{% for m in messages %}{{ loop.index }}/{{ loop.length }}{{ loop.last }}{% endfor %}"
    assert ChatTemplate(source, {}).render(HELLO * 2) == "1/2False2/2True"


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a'.center(99) }}",
        "{{ '%99d' % 1 }}",
        "{{ '{:99}'.format(1) }}",
        "{{ 'a' | center(99) }}",
        "{{ lipsum(9) }}",
        "{{ messages | tojson(indent=99) }}",
    ],
)
def test_what_pads_and_formats_is_not_there(source: str) -> None:
    with pytest.raises((TemplateRefused, TemplateError)):
        ChatTemplate(source, {}).render(HELLO)


def test_a_template_cannot_take_the_clock_away() -> None:
    for source in (
        "{% set look_at_the_clock = 1 %}",
        "{% macro look_at_the_clock() %}{% endmacro %}",
    ):
        loop = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}"
        with pytest.raises(TemplateTooSlow):
            ChatTemplate(source + loop, {}).render(HELLO, limit_s=0.05)


def test_what_chat_templates_use_works() -> None:
    source = (
        "{{ 'a' ~ 1 ~ 'b' }} {{ ['x', 'y'] | join(', ') }} {{ 'a b'.replace('a', 'c') }} "
        "{{ 'k: v' | indent(2, true) }} {{ 3 * 4 }} {{ 7 % 4 }} {{ 'a' + 'b' }} {{ 'ab' * 2 }} "
        "{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ ' x ' | trim }}"
    )
    assert ChatTemplate(source, {}).render(HELLO) == "a1b x, y c b   k: v 12 3 ab abab 1 x"
