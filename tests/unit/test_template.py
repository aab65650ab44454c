"""Templates come with models: what transformers renders renders here, what fails is refused."""

import pytest

from api.requests.template import ChatTemplate, TemplateRefused

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
