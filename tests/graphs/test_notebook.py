"""Runs and drawings in a notebook: pictures inside, texts escaped, nothing loaded from afar."""

from __future__ import annotations

from html.parser import HTMLParser

from phantom import phantom_collaborators

from medgen.graphs.agent import Agent
from medgen.graphs.generate import generate
from medgen.graphs.results import DrawingResult, RunResult

HOSTILE = (
    'cardiomegaly <img src=x onerror="alert(1)"></figure><script>alert(2)</script>, chest X-ray'
)


class Page(HTMLParser):
    """What a browser would make of a fragment: its tags, and the sources of its images."""

    def __init__(self, fragment: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.handlers: list[str] = []
        self.words = ""
        self.feed(fragment)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.words += data


def assert_harmless(page: Page) -> None:
    assert "script" not in page.tags and page.handlers == []
    assert page.sources and all(one.startswith("data:image/jpeg;base64,") for one in page.sources)


def test_a_run_shows_each_image_beside_its_control_with_verdicts(agent: Agent) -> None:
    run = agent.run("cardiomegaly, chest X-ray", images=2, rounds=4)
    page = Page(run._repr_html_())
    assert_harmless(page)
    assert page.tags.count("img") == 4 and len(set(page.sources)) == 4
    for words in ("cardiomegaly, chest X-ray", "accepted", "confirmed", "Not for diagnosis"):
        assert words in page.words
    measured = run.findings[0].measurements[0]
    assert f"cardiothoracic ratio {measured.value:.3g}" in page.words
    assert "at least 0.5" in page.words


def test_a_hostile_prompt_is_shown_as_text(agent: Agent) -> None:
    run = agent.run(HOSTILE, rounds=1)
    page = Page(run._repr_html_())
    assert_harmless(page)
    assert HOSTILE in page.words


def test_a_drawing_shows_its_images_and_that_nothing_verified_them(agent: Agent) -> None:
    drawing = generate(HOSTILE, images=3, collaborators=phantom_collaborators())
    page = Page(drawing._repr_html_())
    assert_harmless(page)
    assert page.tags.count("img") == 3
    assert "not verified" in page.words and HOSTILE in page.words


def test_results_open_their_pictures(agent: Agent) -> None:
    run = agent.run("cardiomegaly, chest X-ray", images=2, rounds=1, seed=7)
    assert isinstance(run, RunResult)
    assert [picture.size for picture in run.pictures] == [(128, 128)] * 2
    assert run.image.tobytes() == run.pictures[0].tobytes() != run.pictures[1].tobytes()
    assert run.request.seed == 7 and run.folder.name == run.run_id
    drawing = generate("cardiomegaly, chest X-ray", collaborators=phantom_collaborators())
    assert isinstance(drawing, DrawingResult)
    assert drawing.image.mode == "RGB"
