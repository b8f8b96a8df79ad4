from __future__ import annotations

import base64
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from goalposts.benchmark.errors import RequestError
from goalposts.results import site
from goalposts.results.leaderboard import Leaderboard
from goalposts.results.ranking import build_leaderboard
from goalposts.results.site import write_site, write_story_svg
from tests.results.factory import CASES, SUITE, record, story

HOSTILE = """<script>document.title='owned'</script>"'{{7*7}}&_[red]"""
VOID = {"meta", "link", "br", "wbr", "img"}


class Page(HTMLParser):
    """Collects the cells of every table, and checks that tags are balanced and ids unique."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[dict[str, Any]] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append(tag)
        if attributes.get("id"):
            self.ids.append(str(attributes["id"]))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append({"class": attributes.get("class"), "caption": "", "rows": []})
        elif tag == "tr":
            self.tables[-1]["rows"].append([])
        elif tag in ("td", "th"):
            self.tables[-1]["rows"][-1].append("")
            if tag == "th":
                assert attributes.get("scope") in ("row", "col")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "caption" in self.open:
            self.tables[-1]["caption"] += data
        elif "td" in self.open or "th" in self.open:
            self.tables[-1]["rows"][-1][-1] += data


@pytest.fixture
def board() -> Leaderboard:
    return build_leaderboard(SUITE, story())


def page_of(folder: Path, leaderboard: Leaderboard) -> tuple[str, Page]:
    text = write_site(folder, leaderboard, SUITE, CASES).read_text(encoding="utf-8")
    return text, Page(text)


def test_tables_are_complete(tmp_path: Path, board: Leaderboard) -> None:
    _, page = page_of(tmp_path, board)
    assert [table["class"] for table in page.tables] == ["ranking", "task", "task", "knowledge"]
    assert all(table["caption"] for table in page.tables)
    assert len(set(page.ids)) == len(page.ids)
    ranking = [[" ".join(cell.split()) for cell in row] for row in page.tables[0]["rows"]]
    assert [row[0] for row in ranking] == ["Rank", "1", "2", "3", "4"]
    assert [row[1] for row in ranking[1:]] == ["domain_randomization", "accel", "goal_multi", "none baseline"]
    score = board.entries[0].score
    assert score is not None
    assert ranking[1][2] == f"{score.mean:.1f} {score.low:.1f} to {score.high:.1f}"
    assert ranking[4][7:9] == ["3/3", "nothing (blind)"]
    assert all(len({len(row) for row in table["rows"]}) == 1 for table in page.tables)


def test_page_needs_nothing_else(tmp_path: Path, board: Leaderboard) -> None:
    text, page = page_of(tmp_path, board)
    assert "script" not in page.tags
    assert "http" not in text
    assert "@import" not in text
    assert "prefers-color-scheme: dark" in text


def test_headline_follows_the_data(tmp_path: Path, board: Leaderboard) -> None:
    text, _ = page_of(tmp_path, board)
    assert "The baseline is capable and pursues the wrong goal: capability 0.96, goal fidelity 0.04." in text
    assert "domain_randomization repairs it." in text
    assert "accel and goal_multi help without repairing it." in text


def test_page_has_the_case_and_how_to_reproduce(tmp_path: Path, board: Leaderboard) -> None:
    text, _ = page_of(tmp_path, board)
    for part in ("harm", "training_change", "evaluation_change"):
        assert CASES["fraud"][part] in text
    assert "goalposts run quick-v1" in text
    assert board.salt_commitment in text
    assert "f844f8703e91bce2322065dfcebfdf9a48971f17" in text


def test_pictures_have_a_mark_for_every_seed(tmp_path: Path, board: Leaderboard) -> None:
    text, _ = page_of(tmp_path, board)
    assert text.count("<title>none, corner, seed 0") == 1
    assert text.count("<title>none: capability 0.9") == 1
    assert text.count(" seed ") >= len(story())
    assert text.count("<desc") == 1 + 2 + 2 * 3


def test_a_task_s_pictures_are_in_the_page(tmp_path: Path, board: Leaderboard) -> None:
    text, _ = page_of(tmp_path, board)  # Of corner, which has pictures, and fraud, which has none.
    for kind in ("png", "gif"):
        whole = base64.b64encode((site.PICTURES / f"corner.{kind}").read_bytes()).decode()
        assert text.count(f"data:image/{kind};base64,") == text.count(whole) == 1


def test_hostile_name_is_escaped(tmp_path: Path) -> None:
    records = [*story(), *(record(task, HOSTILE, s) for task in ("corner", "fraud") for s in range(3))]
    board = build_leaderboard(SUITE, records)
    text, page = page_of(tmp_path, board)
    assert "script" not in page.tags
    assert "<script" not in text
    assert HOSTILE in [row[1].strip() for row in page.tables[0]["rows"]]
    write_story_svg(tmp_path / "story.svg", board)
    ET.parse(tmp_path / "story.svg")


def test_unusual_entries_are_shown_and_marked(tmp_path: Path) -> None:
    records = [
        *story(),
        *(record(task, "broken", s, status="failed") for task in ("corner", "fraud") for s in range(3)),
    ]
    for task in ("corner", "fraud"):
        records += [record(task, "random", seed, trained=0.2, capability=0.0) for seed in range(3)]
    text, page = page_of(tmp_path, build_leaderboard(SUITE, records))
    names = [" ".join(row[1].split()) for row in page.tables[0]["rows"]]
    assert names[-2:] == ["random unrated: corner, fraud", "broken incomplete"]
    assert "NonFiniteError" in text
    assert text.count("Without a mark: 3 that reached neither goal") == 2  # On each task; of the means it is one.


def test_every_rate_has_its_table(tmp_path: Path) -> None:
    suite = SUITE.model_copy(update={"alphas": (0.0, 0.1)})
    _, page = page_of(tmp_path, build_leaderboard(suite, story(alphas=(0.0, 0.1))))
    assert [table["class"] for table in page.tables] == ["curves"] + ["ranking"] * 2 + ["task"] * 4 + ["knowledge"]
    assert len(set(page.ids)) == len(page.ids)


def test_page_is_deterministic(tmp_path: Path, board: Leaderboard) -> None:
    (tmp_path / "again").mkdir()
    again = build_leaderboard(SUITE, list(reversed(story())))
    assert page_of(tmp_path, board)[0] == page_of(tmp_path / "again", again)[0]


def test_story_is_an_svg_with_its_own_background(tmp_path: Path, board: Leaderboard) -> None:
    write_story_svg(tmp_path / "story.svg", board)
    root = ET.parse(tmp_path / "story.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    rectangle = root.find("{http://www.w3.org/2000/svg}rect")
    assert rectangle is not None
    assert rectangle.get("fill") == "#ffffff"


@pytest.fixture
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on the PATH")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=arguments)
        yield browser
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_in_a_browser_on_a_phone(tmp_path: Path, browser: Any, scheme: str) -> None:
    long_name = "a_mitigation_with_" + "x" * 80
    records = [*story(), *(record(task, name, s) for task in CASES for name in (HOSTILE, long_name) for s in range(3))]
    path = write_site(tmp_path, build_leaderboard(SUITE, records), SUITE, CASES)
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: problems.append(request.url) if request.url.startswith("http") else None)
    page.goto(path.as_uri())
    assert problems == []
    assert page.title() == "Goalposts leaderboard: quick-v1"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("table.ranking tbody tr").count() == 6
    assert page.locator("table.ranking tbody tr th").first.is_visible()
    assert page.locator("table.task tbody tr").count() == 12
    assert page.locator("svg.scatter").count() == 3
    assert page.locator("svg.scatter").first.locator(".mark").count() == 6
    assert page.locator("svg.scatter").last.locator(".mark").count() == 18


def test_a_linked_folder_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "site").symlink_to("elsewhere")
    with pytest.raises(RequestError, match="it is a link"):
        write_site(tmp_path, build_leaderboard(SUITE, story()), SUITE)
    assert not list((tmp_path / "elsewhere").iterdir())
