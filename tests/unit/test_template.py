"""Templates come with models: what transformers renders renders here, what fails is refused."""

import pytest

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
    ],
)
def test_a_template_that_goes_on_for_ever_is_stopped(source: str) -> None:
    with pytest.raises(TemplateTooSlow):
        ChatTemplate(source, {}).render(HELLO, limit_s=0.05)


@pytest.mark.parametrize(
    "source",
    ["{{ 'a' * 999999999 }}", "{{ 9 ** (9 ** 9) }}", "{{ [1] * 9999999 }}", "{{ range(10 ** 9) }}"],
)
def test_a_template_that_makes_something_huge_is_refused(source: str) -> None:
    with pytest.raises(TemplateRefused, match="too large"):
        ChatTemplate(source, {}).render(HELLO)


def test_loops_know_where_they_are() -> None:
    source = "{% for m in messages %}{{ loop.index }}/{{ loop.length }}{{ loop.last }}{% endfor %}"
    assert ChatTemplate(source, {}).render(HELLO * 2) == "1/2False2/2True"
