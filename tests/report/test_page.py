"""The page in a real browser: it works, asks nothing of any network, and shows every string as text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ganforge.report import page as page_module
from ganforge.report.data import report_data
from ganforge.report.page import PlotlyMissingError, page
from ganforge.report.pictures import Embedded
from ganforge.report.server import serve

pytestmark = pytest.mark.xdist_group("browser")

NAME = "search/<script>alert(1)<∕script>"


def names(shown: Any) -> list[str]:
    found: list[str] = shown.locator("#runs tbody .name").all_inner_texts()
    return found


@pytest.fixture
def shown(watched: Any, report_file: Path) -> Any:
    opened = watched.open(report_file.as_uri())
    yield opened
    assert watched.requests == [report_file.as_uri()], "nothing but the file itself"


def drawn(shown: Any, chart: str = "#panels .chart") -> Any:
    """The first chart, once Plotly has drawn it."""
    shown.locator(chart).first.scroll_into_view_if_needed()
    shown.wait_for_selector(f"{chart} .plot-container")
    return shown.locator(chart).first


def test_the_best_run_comes_first_and_a_click_sorts(shown: Any) -> None:
    assert names(shown) == ["search/0", NAME, "search/2", "search/3", "search/4", "search/5"]
    heading = shown.locator("#runs th[data-column='best:val/fid']")
    assert heading.get_attribute("aria-sort") == "ascending"
    heading.locator("button").first.click()
    assert names(shown) == ["search/5", "search/4", "search/3", "search/2", NAME, "search/0"]
    assert heading.get_attribute("aria-sort") == "descending"
    shown.locator("#runs th[data-column='state'] button").first.click()
    assert shown.locator("#runs tbody .state").all_inner_texts() == ["ended"] * 4 + ["failed", "pruned"]


FILTERS = {
    "loss=hinge": {"0", "2", "4"},
    "optimizer.generator.lr<0.0011": {"2", "3", "4", "5"},
    "lr<0.0011 loss=wasserstein": {"3", "5"},
    "state=failed": {"4"},
    "best.fid<=8.25": {"0", NAME, "2"},
    "protocol=bbbb1111": {"5"},
    "seed!=0": {NAME, "2", "4", "5"},
    "comment~onerror": {NAME},
    "<script>": {NAME, "4"},
    "nan": {"4"},
    'name~"SEARCH/3"': {"3"},
    "num_classes=3": {"0", NAME, "2", "3", "4", "5"},
}


def test_filters(shown: Any) -> None:
    for words, left in FILTERS.items():
        shown.fill("#filter", words)
        shown.keyboard.press("Enter")
        assert {name if name == NAME else name.removeprefix("search/") for name in names(shown)} == left, (
            words
        )
        said = shown.inner_text("#filter-said")
        assert (f"{len(left)} of 6 runs" if len(left) < 6 else "6 runs") in said
        assert ("no setting or figure is named num_classes" in said) == ("num_classes" in words)


LINES = "chart => chart.data.filter(trace => trace.mode !== 'markers').length"


def test_a_filter_can_be_chosen_and_narrows_the_curves(shown: Any, until: Any) -> None:
    chart = drawn(shown)
    assert chart.evaluate(LINES) == 6
    shown.select_option("#filter-key", "loss")
    shown.select_option("#filter-value", "wasserstein")
    shown.click("#filter-add")
    assert shown.input_value("#filter") == "loss=wasserstein"
    assert names(shown) == [NAME, "search/3", "search/5"]
    until(lambda: chart.evaluate(LINES) == 3)
    shown.click("#filter-clear")
    assert len(names(shown)) == 6


def test_a_run_can_be_left_out_of_the_curves(shown: Any, until: Any) -> None:
    chart = drawn(shown)
    shown.get_by_role("checkbox", name="Draw digits/search/2").uncheck()
    until(lambda: chart.evaluate(LINES) == 5)
    assert shown.locator("#all").evaluate("box => box.indeterminate")
    shown.locator("#all").check()
    until(lambda: chart.evaluate(LINES) == 6)


def test_hover_names_the_run_and_lights_its_row(shown: Any) -> None:
    chart = drawn(shown)
    at = chart.evaluate(
        """chart => { const {xaxis, yaxis} = chart._fullLayout;
        const box = chart.querySelector('.nsewdrag').getBoundingClientRect();
        const trace = chart.data[5];
        return [box.left + xaxis.d2p(trace.x[3]), box.top + yaxis.d2p(trace.y[3])]; }"""
    )
    shown.mouse.move(*at)
    shown.wait_for_selector("#panels .hoverlayer .hovertext")
    text = " ".join(chart.locator(".hovertext").all_text_contents())
    assert "17.5 at 4 kimg" in text
    assert "protocol fewbbbb1111" in text
    assert "search/5" in text
    assert shown.locator("#runs tr.lit .name").all_inner_texts() == ["search/5"]


def test_dragging_zooms_and_a_filter_leaves_the_zoom(shown: Any, until: Any) -> None:
    chart = drawn(shown)
    box = chart.locator(".nsewdrag").first.bounding_box()
    shown.mouse.move(box["x"] + 50, box["y"] + 50)
    shown.mouse.down()
    shown.mouse.move(box["x"] + 200, box["y"] + 150, steps=4)
    shown.mouse.up()
    until(lambda: chart.evaluate("chart => chart.layout.xaxis.autorange") is False)
    zoomed = chart.evaluate("chart => chart.layout.xaxis.range")
    shown.fill("#filter", "loss=hinge")
    shown.keyboard.press("Enter")
    assert chart.evaluate("chart => chart.layout.xaxis.range") == zoomed
    assert chart.evaluate(LINES) == 3


def test_health_events_lie_on_the_curve(shown: Any) -> None:
    chart = drawn(shown)
    trace = chart.evaluate("chart => chart.data.find(t => t.mode === 'markers' && t.x[0] === 4)")
    assert trace["y"] == [12.5, 12.5], "the curve's value at 4 kimg"
    assert trace["marker"]["symbol"] == ["triangle-up", "x"]
    assert trace["text"][0] == "collapse (warn): &lt;script&gt;alert(1)&lt;/script&gt;"


def test_the_slider_goes_through_training(shown: Any, until: Any) -> None:
    shown.locator("#time").scroll_into_view_if_needed()
    assert shown.inner_text("#time-said") == "8 kimg"
    assert shown.locator("#grids img").count() == 6
    last = shown.locator("#grids img").first.get_attribute("src")
    assert last.startswith("data:image/webp;base64,")
    shown.locator("#time").focus()
    shown.keyboard.press("Home")
    assert shown.inner_text("#time-said") == "0 kimg"
    first = shown.locator("#grids img").first
    assert first.get_attribute("src") != last
    assert first.get_attribute("alt") == "samples of digits/search/0 at 0 kimg"
    shown.keyboard.press("ArrowRight")
    assert shown.inner_text("#time-said") == "2 kimg"
    assert first.evaluate("async image => { await image.decode(); return image.naturalWidth; }") == 64
    shown.click("#play")
    until(lambda: shown.inner_text("#time-said") == "6 kimg")
    shown.click("#play")


def test_everything_can_be_reached_by_keyboard(shown: Any) -> None:
    wanted = {"theme", "filter", "filter-key", "filter-add", "all", "name", "colour", "chart", "time", "play"}
    wanted |= {"reference", "source", "objective", "parallel"}
    for _ in range(400):
        shown.keyboard.press("Tab")
        wanted -= set(
            shown.evaluate(
                "(({id, className}) => [id, ...String(className).split(' ')])(document.activeElement)"
            )
        )
        if not wanted:
            break
    assert not wanted
    shown.locator("#runs th[data-column='final:fid'] button").first.focus()
    shown.keyboard.press("Enter")
    assert shown.evaluate("document.activeElement.textContent").startswith("final fid"), "the focus stays"
    assert shown.locator("#runs th[data-column='final:fid']").get_attribute("aria-sort") == "ascending"
    shown.get_by_role("button", name="search/2").first.focus()
    shown.keyboard.press("Enter")
    assert shown.locator("#details").is_visible()
    shown.keyboard.press("Escape")
    assert not shown.locator("#details").is_visible()


def test_a_chart_is_zoomed_and_read_by_keyboard(shown: Any) -> None:
    chart = drawn(shown)
    chart.focus()
    whole = chart.evaluate("chart => chart.layout.xaxis.range")
    shown.keyboard.press("+")
    low, high = chart.evaluate("chart => chart.layout.xaxis.range")
    assert high - low == pytest.approx((whole[1] - whole[0]) / 2)
    shown.keyboard.press("0")
    assert chart.evaluate("chart => chart.layout.xaxis.autorange")
    shown.keyboard.press(".")
    shown.keyboard.press(".")
    said = shown.locator("#panels .said").first
    assert said.inner_text() == "search/0: 25 at 2 kimg"
    shown.keyboard.press("ArrowDown")
    assert said.inner_text() == f"{NAME}: 26 at 2 kimg"


def test_a_failed_run_says_why_and_shows_all_that_is_known(shown: Any) -> None:
    row = shown.locator("#runs tbody tr", has_text="search/4")
    assert "loss became nan <script>alert(1)</script>" in row.inner_text()
    row.get_by_role("button", name="search/4").click()
    text = shown.inner_text("#details")
    assert "failed: loss became nan <script>alert(1)</script>" in text
    assert "ganforge train" in shown.locator("#details pre").text_content()
    link = shown.locator("#details a", has_text="failure.txt")
    address = link.evaluate("link => link.href")
    assert Path(re.sub("^file://", "", address)).read_text().startswith("loss became nan")


def test_strings_of_runs_are_text(shown: Any) -> None:
    assert shown.title() == "<script>alert(1)</script> & co"
    assert shown.inner_text("#title") == "<script>alert(1)</script> & co"
    drawn(shown)
    shown.get_by_role("button", name=NAME).first.click()
    shown.locator("#details summary", has_text="All settings").click()
    assert "</script><script>alert(1)</script><img src=x onerror=alert(2)>" in shown.inner_text(
        "#details-body"
    )
    assert shown.inner_text("#details-name") == "digits/" + NAME
    assert shown.locator("#details img, #details script").count() == 0
    shown.keyboard.press("Escape")
    drawn(shown, "#parallel")
    assert shown.locator("body script").count() == 3, "the data, Plotly and the page's own"


def test_protocols_that_differ_are_said(shown: Any) -> None:
    notice = shown.inner_text("#protocols")
    assert "2 protocols (aaaa0000, bbbb1111)" in notice
    shown.fill("#filter", "protocol=aaaa0000")
    shown.keyboard.press("Enter")
    assert shown.locator("#protocols").is_hidden()


def test_differences_are_marked_against_the_chosen_run(shown: Any) -> None:
    def row(key: str) -> list[str]:
        cells = shown.locator("#settings tbody tr", has_text=key).locator("td")
        return [cell for cell in cells.evaluate_all("cells => cells.map(c => c.className)")]

    assert row("loss") == ["", "differs", "", "differs", "", "differs"]
    shown.select_option("#reference", label="search/3")
    assert row("loss") == ["", "differs", "", "differs", "differs", ""]


def test_a_search_is_drawn_with_history_importance_and_slices(shown: Any, until: Any) -> None:
    chart = drawn(shown, "#parallel")
    assert "best: trial 0 with 6.25" in chart.get_attribute("aria-label")
    labels = chart.evaluate("chart => chart.layout.annotations.map(a => a.text)")
    assert {"optimizer.generator.lr (log)", "loss", "hinge", "wasserstein"} <= set(labels)
    assert chart.evaluate("chart => chart.data.filter(t => t.line.dash === 'dot').length") == 2, (
        "without a value"
    )
    titles = shown.locator("#search h3").all_inner_texts()
    assert {"History", "optimizer.generator.lr", "loss"} <= set(titles)
    history = shown.locator("#search .chart").first
    history.scroll_into_view_if_needed()
    shown.wait_for_selector("#search .chart .plot-container")
    assert history.evaluate("chart => chart.data[0].y") == [6.25] * 4, "the best so far"
    shown.select_option("#source", "runs")
    until(lambda: chart.evaluate("chart => chart.data.length") == 6)


def test_columns_can_be_added_and_removed(shown: Any) -> None:
    shown.select_option("#column-add", "set:game.loss")
    assert shown.locator("#runs th[data-column='set:game.loss']").count() == 1
    shown.get_by_role("button", name="Remove column game.loss").click()
    assert shown.locator("#runs th[data-column='set:game.loss']").count() == 0


def test_dark_and_light(browser: Any, report_file: Path) -> None:
    for scheme, paper in (("dark", "rgb(20, 23, 28)"), ("light", "rgb(255, 255, 255)")):
        context = browser.new_context(color_scheme=scheme)
        opened = context.new_page()
        opened.goto(report_file.as_uri())
        background = "getComputedStyle(document.body).backgroundColor"
        assert opened.evaluate(background) == paper
        opened.click("#theme")
        assert opened.evaluate(background) != paper
        context.close()


def test_a_phone_scrolls_down_only(browser: Any, report_file: Path) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True)
    opened = context.new_page()
    opened.goto(report_file.as_uri())
    opened.wait_for_selector("html[data-ready]")
    assert opened.evaluate("document.documentElement.scrollWidth") <= 360
    whole = opened.locator("#runs .name").evaluate_all(
        "names => names.map(n => n.scrollWidth <= n.clientWidth)"
    )
    assert whole == [True] * 6, "names can be read"
    context.close()


def test_two_hundred_runs_of_a_thousand_points_are_all_drawn(watched: Any, tmp_path: Path) -> None:
    """As data, without the folders; bench/report.py measures how long it takes."""
    kimg = list(range(1000))
    runs = [_entry(i, {"val/fid": [kimg, [100.0 / (k + 1) + i for k in kimg]]}) for i in range(200)]
    out = tmp_path / "many.html"
    data = {
        "runs": runs,
        "shared": {},
        "differing": ["lr"],
        "asked": ["lr"],
        "better": {"fid": "lower"},
        "monitor": "fid",
    }
    rest = {"main": [], "figures": ["val/fid"], "sweeps": [], "searches": [], "made": "now", "version": "0"}
    out.write_text(page({**data, **rest}, "many"))
    opened = watched.open(out.as_uri())
    chart = drawn(opened)
    assert opened.locator("#runs tbody tr").count() == 200
    assert chart.evaluate("chart => chart.data.map(trace => trace.x.length)") == [1000] * 200


def _entry(i: int, curves: dict[str, Any]) -> dict[str, Any]:
    return {
        **{
            "name": f"many/{i}",
            "path": f"/many/{i}",
            "state": "ended",
            "reason": "",
            "problems": [],
            "kimg": 999.0,
        },
        **{
            "total": 1000,
            "speed": 1.0,
            "scores": {"fid": float(i)},
            "final": True,
            "protocol": "a",
            "stamp": {},
        },
        **{
            "curve_protocols": {"val": "a"},
            "best": {"val/fid": [float(i), 999.0]},
            "asked": [],
            "starts": [],
        },
        **{"started": None, "curves": curves, "grids": {}, "grid_count": 0, "health": [], "links": []},
        **{"group": f"lr={i}", "settings": {"lr": i}, "whole": True, "sweep": None},
    }


def test_runs_that_never_played_are_shown(watched: Any, tmp_path: Path) -> None:
    for i in range(2):
        (tmp_path / "sweep" / str(i)).mkdir(parents=True)
        (tmp_path / "sweep" / str(i) / "overrides.yaml").write_text(f"[optimizer.lr=-{i}]")
        (tmp_path / "sweep" / str(i) / "failure.txt").write_text("Invalid learning rate")
    out = tmp_path / "report.html"
    out.write_text(page(report_data([tmp_path], Embedded(2), str), "none"))
    opened = watched.open(out.as_uri())
    assert opened.locator("#runs tbody .state").all_inner_texts() == ["failed"] * 2
    assert "optimizer.lr" in opened.inner_text("#runs thead")
    assert opened.inner_text("#grids") == "No sample grids here."
    assert opened.inner_text("#sweep-said").startswith("Nothing to draw")


def test_the_policy_lets_no_other_script_run(watched: Any, report_file: Path, tmp_path: Path) -> None:
    """Were a string of a run ever to become markup, the browser would not run it."""
    changed = tmp_path / "changed.html"
    changed.write_text(
        report_file.read_text().replace("<footer>", "<footer><script>document.title='evil'</script>")
    )
    opened = watched.open(changed.as_uri())
    assert opened.title() != "evil"
    assert [complaint for complaint in watched.complaints if "Content Security Policy" in complaint]
    watched.complaints.clear()


def test_what_json_does_not_know_is_refused_early() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        page_module.as_json({"value": float("nan")})
    assert json.loads(page_module.as_json({"name": "é<"})) == {"name": "é<"}


def test_plotly_is_asked_for_by_the_name_of_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "find_spec", lambda name: None)
    for call in (lambda: page({}, "title"), lambda: serve([tmp_path], "title", 0, print)):
        with pytest.raises(PlotlyMissingError, match=r"pip install 'ganforge\[report\]'"):
            call()
