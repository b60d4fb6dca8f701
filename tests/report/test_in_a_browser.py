"""The pages as a browser has them: nothing is asked for, nothing is complained of, nothing is wider than a phone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import EXECUTABLE, Browser, chromium
from fake_sweep import NAMES, report

pytestmark = [
    pytest.mark.many,
    pytest.mark.skipif(EXECUTABLE is None, reason="no Chromium here; Debian's package `chromium` has it"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@pytest.mark.parametrize("name", NAMES)
def test_a_page_logs_nothing_and_asks_for_nothing_but_itself(browser, base, name):
    page = report(base, name)
    browser.open(page, width=1600)
    assert browser.messages() == []
    assert browser.requests() == [page.resolve().as_uri()]


@pytest.mark.parametrize("width", [320, 400, 800, 1600])
@pytest.mark.parametrize("name", NAMES)
def test_no_page_is_wider_than_its_window_even_with_every_table_open(browser, base, name, width):
    browser.open(report(base, name), width)
    browser.value("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert browser.value("document.documentElement.scrollWidth") <= width
    # what is wider than the window scrolls inside a region of its own, which the keyboard reaches
    wide = f"[...document.querySelectorAll('.scroll')].filter(each => each.scrollWidth > {width} && each.tabIndex < 0)"
    assert browser.value(f"{wide}.length") == 0


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_page_in_light_and_in_dark(browser, base, dark):
    browser.open(report(base, "few"), 1600, dark=dark)
    page = _luminance(browser.value("getComputedStyle(document.body).backgroundColor"))
    assert (page < 0.1) is dark
    for selector in ("body", "h2", "figcaption", "a", "figure svg text", ".soft", "td"):
        ink = "fill" if "svg" in selector else "color"
        every = f"[...document.querySelectorAll('{selector}')].map(each => getComputedStyle(each).{ink})"
        for colour in set(browser.value(every)):
            found = _luminance(colour)
            # 4.5 : 1 is what WCAG 2.2 asks of text (success criterion 1.4.3)
            assert (max(page, found) + 0.05) / (min(page, found) + 0.05) >= 4.5, (selector, colour)


@pytest.mark.parametrize("dark", [False, True])
def test_every_verdict_stands_out_from_its_page(browser, base, dark):
    browser.open(report(base, "few"), 1600, dark=dark)
    page = _luminance(browser.value("getComputedStyle(document.body).backgroundColor"))
    colours = browser.value("[...document.querySelectorAll('.legend [class^=v-]')].map(e => getComputedStyle(e).color)")
    assert colours
    for colour in colours:
        found = _luminance(colour)
        # 3 : 1 is what it asks of graphics (1.4.11)
        assert (max(page, found) + 0.05) / (min(page, found) + 0.05) >= 3, colour


def test_figures_of_a_phone_have_letters_that_can_be_read(browser, base):
    browser.open(report(base, "few"), 400)
    texts = "[...document.querySelectorAll('figure svg text')]"
    heights = browser.value(f"{texts}.map(each => each.getBoundingClientRect().height)")
    assert heights
    assert min(heights) >= 8


def test_no_letter_of_a_figure_is_cut_at_its_edge(browser, base):
    browser.open(report(base, "few"), 1600)
    outside = """[...document.querySelectorAll('figure svg')].flatMap(svg => [...svg.querySelectorAll('text')]
        .filter(text => { const inner = text.getBoundingClientRect(), outer = svg.getBoundingClientRect();
            return inner.left < outer.left - 1 || inner.right > outer.right + 1 })
        .map(text => text.textContent))"""
    assert browser.value(outside) == []


def test_a_page_prints_on_white_and_says_what_is_folded(browser, base, tmp_path):
    browser.open(report(base, "few"), 800, dark=True, media="print")
    assert _luminance(browser.value("getComputedStyle(document.body).backgroundColor")) > 0.9
    after = "getComputedStyle(document.querySelector('summary'), '::after').content"
    assert "before printing" in browser.value(after)
    assert browser.pdf(tmp_path / "page.pdf").stat().st_size > 10_000


def _luminance(colour: str) -> float:
    """Relative luminance of `rgb(...)`, as WCAG defines it; nothing painted counts as white."""
    numbers = [float(each) for each in colour[colour.index("(") + 1 : -1].split(",")]
    if len(numbers) == 4 and numbers[3] == 0:
        return 1.0
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (n / 255 for n in numbers[:3])]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
