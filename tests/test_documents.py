"""Tests of documents: the same sections as an HTML page, as Markdown and as text for a terminal.

Whatever a text contains is shown and never run, and a page needs no other file.
"""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from eczema_tf.reporting.document import (
    Bullets,
    Picture,
    Pictures,
    Section,
    Table,
    Warned,
    format_markdown,
    format_page,
    format_text,
)
from eczema_tf.schema import NOTICE

HOSTILE = (
    """<script>alert(1)</script> & "quoted" 'single' | pipe `code` *star* [link](javascript:x)"""
)
VOID = {"meta", "img"}


class Page(HTMLParser):
    """Reads a page, records its tags, attributes and text, and fails on tags that do not match."""

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.text = [], [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def find(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (3, 2), "red").save(tmp_path / "red.png")
    return tmp_path / "red.png"


@pytest.fixture
def sections(picture: Path) -> list[Section]:
    table = Table(
        "A table",
        ("what", "figure", "words"),
        [["first", "0.50 [0.40, 0.60]", "3 things"], ["second", "-", HOSTILE]],
    )
    return [
        Section("One", ["A paragraph.", table, Bullets(["this", HOSTILE])]),
        Section(
            "Two",
            [Warned("Mind this."), Pictures([Picture(picture, f"red {HOSTILE}", "A picture")])],
        ),
    ]


def test_page_is_complete_html_that_a_screen_reader_can_use(sections):
    page = Page(format_page("A title", sections))
    assert page.find("html") == [{"lang": "en"}]
    assert [tag for tag, _ in page.tags if re.fullmatch(r"h\d", tag)] == ["h1", "h2", "h2"]
    assert len(page.find("main")) == 1
    assert all(image["alt"] for image in page.find("img"))
    assert {cell["scope"] for cell in page.find("th")} == {"col", "row"}
    assert [
        region["aria-label"] for region in page.find("div") if region.get("role") == "region"
    ] == ["A table"]
    assert sum(NOTICE in text for text in page.text) == 2


def test_page_is_self_contained_and_runs_nothing(sections):
    html = format_page("A title", sections)
    page = Page(html)
    assert not page.find("script") + page.find("link") + page.find("a") + page.find("iframe")
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.find("img"))
    assert not re.search(r"https?://|url\(", html)
    policy = next(meta["content"] for meta in page.find("meta") if "http-equiv" in meta)
    assert "default-src 'none'" in policy


def test_hostile_text_is_shown_unchanged(sections):
    page = Page(format_page(HOSTILE, sections))
    assert page.text.count(HOSTILE) == 4  # title, heading, cell, bullet
    assert page.find("img")[0]["alt"] == f"red {HOSTILE}"


def test_only_columns_of_numbers_are_right_aligned(sections):
    page = Page(format_page("A title", sections))
    heads = [cell for cell in page.find("th") if cell["scope"] == "col"]
    assert [cell.get("class") for cell in heads] == [None, "number", None]


def test_markdown_contains_the_title_notice_and_sections(sections):
    lines = format_markdown("A title", sections).splitlines()
    assert lines[0] == "# A title"
    assert lines.count(f"> {NOTICE}") == 2
    assert [line for line in lines if line.startswith("## ")] == ["## One", "## Two"]
    assert "| first | 0.50 [0.40, 0.60] | 3 things |" in lines
    assert "**Mind this.**" in lines
    assert "- this" in lines


def test_markdown_escapes_html_links_and_pipes(sections):
    text = format_markdown(HOSTILE, sections)
    assert "<script" not in text
    assert "](javascript" not in text
    row = next(line for line in text.splitlines() if line.startswith("| second"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 4


@pytest.mark.parametrize("name", ["__init__", "a __b__ c", "_x_", "run_1__x", "__"])
def test_underscores_in_names_do_not_become_emphasis(name: str):
    escaped = format_markdown("A title", [Section("One", [name])]).splitlines()[6]
    assert escaped.replace("\\", "") == name
    assert not re.search(r"(?<!\\)_(?![a-z0-9])|(?<![a-z0-9\\])_", escaped)


def test_markdown_escapes_emphasis_and_strikethrough():
    said = Bullets(["_first_ of a_b", "~~two~~"])
    lines = format_markdown("A title", [Section("One", [said])]).splitlines()
    assert {r"- \_first\_ of a_b", r"- \~\~two\~\~"} <= set(lines)


def test_text_for_a_terminal_has_aligned_columns(sections):
    lines = format_text(sections).splitlines()
    head = next(line for line in lines if line.startswith("what"))
    rows = [line for line in lines if line.startswith(("first", "second"))]
    assert rows[0] == "first   0.50 [0.40, 0.60]  3 things"
    assert head.index("words") == rows[0].index("3 things") == rows[1].index("<script>")
    assert {"A paragraph.", "A table", "- this", "WARNING: Mind this."} <= set(lines)
    assert " ".join(lines[-2:]) == NOTICE
    assert max(len(line) for line in lines if not line.startswith("second")) <= 100


def test_numbers_are_right_aligned_on_a_terminal():
    table = Table("T", ("what", "cases"), [["one", "5"], ["two", "123"]])
    assert "one       5\ntwo     123" in format_text([Section("One", [table])])


def test_table_without_rows_shows_only_its_header():
    sections = [Section("One", [Table("A table", ("a", "b"), [])])]
    assert len(Page(format_page("T", sections)).find("th")) == 2
    assert "a  b" in format_text(sections)


def test_row_and_header_of_different_lengths_are_an_error():
    with pytest.raises(ValueError, match="zip"):
        format_page("A title", [Section("One", [Table("A table", ("a", "b"), [["1", "2", "3"]])])])
