"""The trace page: complete, self-contained, and deaf to HTML in a prompt."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medgen.graphs.agent import Agent
from medgen.graphs.outcome import RunResult
from medgen.graphs.trace_html import gauge, prompt_difference
from medgen.records import Measurement

EVIL = (
    'cardiomegaly, chest X-ray <script>alert("x")</script> <img src=x onerror=y> "quoted" & {{7*7}}'
)


class Tags(HTMLParser):
    """Collects tags with their attributes, and whether they nest."""

    VOID = frozenset({"meta", "img", "br", "rect"})

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.fixture
def run(agent: Agent) -> RunResult:
    return agent.run("cardiomegaly, chest X-ray", rounds=4, images=2)


@pytest.fixture
def page(run: RunResult) -> str:
    return Path(run.trace).with_name("trace.html").read_text(encoding="utf-8")


def parsed(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    tags.close()
    assert tags.open == []
    return tags


def test_it_shows_every_part_of_the_run(run: RunResult, page: str) -> None:
    facts = next(event for event in run.events if event.node == "retrieve").outputs["facts"]
    assert isinstance(facts, list) and facts
    for fact in facts:
        assert fact["id"] in page
    candidates = {event.node: event for event in run.events}["refine"].outputs
    for name in (*candidates, "image0-round1-control", "image1-round1-control"):
        assert name in page
    for words in ("Result beside the control", "cardiothoracic_ratio", "at least 0.5", "refine"):
        assert words in page
    assert "Synthetic image" in page and run.run_id in page
    assert "<ins>" in page and "structured cardiothoracic_ratio" in page


def test_it_loads_nothing_from_anywhere(page: str) -> None:
    tags = parsed(page)
    names = {tag for tag, _ in tags.found}
    assert not names & {"script", "link", "iframe", "object", "embed", "audio", "video", "base"}
    for _, attributes in tags.found:
        for name, value in attributes.items():
            if name in ("src", "href", "srcset", "action", "background"):
                assert (value or "").startswith("data:image/jpeg;base64,")
            assert not name.startswith("on")
    style = page.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style and "@import" not in style
    assert "http" not in re.sub(r"http-equiv", "", page.split("<body>")[0])
    assert "default-src 'none'" in page


def test_it_is_small_and_readable_in_dark_and_light(page: str) -> None:
    assert len(page) < 40_000 * (page.count("<img ") + 1)
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page and '<html lang="en">' in page
    assert all(attributes.get("alt") for tag, attributes in parsed(page).found if tag == "img")


def test_html_in_a_prompt_stays_text(agent: Agent) -> None:
    run = agent.run(EVIL, rounds=2)
    page = Path(run.trace).with_name("trace.html").read_text(encoding="utf-8")
    tags = parsed(page)
    assert "script" not in {tag for tag, _ in tags.found}
    report = Path(run.trace).with_name("report.md").read_text(encoding="utf-8")
    assert "&lt;script>" in report and "<" not in report
    assert not any("onerror" in attributes for _, attributes in tags.found)
    assert "&lt;script&gt;" in page and "{{7*7}}" in page, "text, neither markup nor template"


def test_a_lost_candidate_file_does_not_hide_the_rest(agent: Agent) -> None:
    run = agent.run("cardiomegaly, chest X-ray", rounds=2)
    Path(run.control.image).unlink()
    agent.run(resume=run.run_id)
    parsed(Path(run.trace).with_name("trace.html").read_text(encoding="utf-8"))


@given(before=st.text(), after=st.text())
def test_a_difference_leads_from_one_prompt_to_the_other(before: str, after: str) -> None:
    pieces = prompt_difference(before, after)
    new = "".join(text for kind, text in pieces if kind != "out")
    assert new.split() == after.split()
    kept = [word for kind, text in pieces if kind == "same" for word in text.split()]
    assert len(kept) <= min(len(before.split()), len(after.split()))


def test_a_difference_marks_only_what_changed() -> None:
    assert prompt_difference("chest X-ray, big heart", "chest X-ray, big heart, effusion") == [
        ("same", "chest X-ray, big "),
        ("out", "heart"),
        ("in", "heart, effusion"),
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.47, (0.5, None)), (0.6, (None, 0.5)), (0.5, (0.5, 0.5)), (0.0, (0.0, None)), (3, (1, 9))],
)
def test_a_gauge_stays_on_its_scale(value: float, expected: tuple[float, float]) -> None:
    drawn = gauge(Measurement(name="x", value=value, expected=expected, check="y"))
    assert drawn is not None
    assert 0 <= drawn.left <= drawn.left + drawn.width <= 100
    assert 0 < drawn.value < 100
    low, _ = expected
    if low is not None and value < low:
        assert drawn.value < drawn.left


def test_no_gauge_without_a_range() -> None:
    assert gauge(Measurement(name="x", value=1, check="y")) is None
    assert gauge(Measurement(name="x", value=1, check="y", expected=(None, None))) is None
