"""What all pages share: text stays text, on one line and visible where it must be."""

from tasks.pages.templates import environment, short

HOSTILE = "<b>\"'\u202e</b>"


def drawn(source: str, **values: object) -> str:
    """A template over the shared elements."""
    names = "bar, legend, panel, scroll, td, tdn, th, thn"
    return environment().from_string(f'{{% from "elements.html.j2" import {names} %}}{source}').render(**values)


def test_every_element_escapes_its_text() -> None:
    source = (
        "{{ th(text) }}{{ thn(text) }}{{ td(text) }}{{ tdn(text) }}{{ legend(text, kept=text) }}"
        "<table>{{ bar('kept', 1, 2, text) }}</table>"
        "{% call panel(text) %}{{ text }}{% endcall %}{% call scroll(text) %}{{ text }}{% endcall %}"
    )
    page = drawn(source, text=HOSTILE)
    assert "<b>" not in page
    assert "\u202e" not in page
    assert page.count("&lt;b&gt;&#34;&#39;\ufffd&lt;/b&gt;") == 13


def test_a_bar_has_its_share_of_the_width_and_nothing_for_zero() -> None:
    assert "width:50.000%" in drawn("{{ bar('kept', 1, 2, 'kept') }}")
    assert "<i" not in drawn("{{ bar('kept', 0, 2, 'kept') }}")


def test_shown_values_are_short_and_visible() -> None:
    assert short("x" * 10_000) == "x" * 47 + "\u2026"
    assert short("a\tb\u200b") == "a\ufffdb\ufffd"
