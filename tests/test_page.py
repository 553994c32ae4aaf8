"""The page at `GET /` in a real browser: it predicts, draws, takes files, shows calls that run, and runs nothing foreign."""

from __future__ import annotations

import csv
import http.server
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from conftest import ROOT, SAMPLE, lacking
from playwright.sync_api import Browser, Page, expect, sync_playwright

from contract.manifest import read_manifest, write_manifest
from local_test.emulator import Endpoint, lay_out, serving, train
from local_test.runners import Processes
from serving.pages import figure, make_pages
from serving.settings import Settings

SCREENSHOTS = ROOT / "build" / "screenshots"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update --disable-sync"
NAMES = ["CHAS", "RM", "TAX", "PTRATIO", "B", "LSTAT"]
RM, LSTAT = "#f1", "#f5"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        lacking(f"there is no browser: {', '.join(BROWSERS)}")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=FLAGS.split())
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator:
    """A function that opens a server's page; afterwards nothing may have failed, or gone to another host."""
    contexts, faults, hosts = [], [], set()

    def opened(endpoint: Endpoint, path: str = "/", **options) -> Page:
        context = browser.new_context(accept_downloads=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: faults.append(message.text) if message.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: (faults.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: hosts.add(urlsplit(request.url)._replace(path="", query="", fragment="").geturl()))
        page.goto(endpoint.program.url + path)
        if options.get("java_script_enabled", True):
            page.wait_for_selector("#curves svg")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [fault for fault in faults if "status of 400" not in fault] == []
    assert {host for host in hosts if not host.startswith(("http://127.0.0.1:", "blob:"))} == set()


def train_another(folder: Path, features: str, data: str) -> Path:
    """The /opt/ml of a model whose whole edit is `model/features.py` and its data."""
    tree = folder / "tree"
    for part in ("contract", "model", "training", "serving", "container"):
        shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__", "sample"))
    (tree / "model" / "features.py").write_text(features, encoding="utf-8")
    (folder / "data").mkdir()
    (folder / "data" / "data.csv").write_text(data, encoding="utf-8")
    lay_out(folder / "ml", {"training": folder / "data"})
    outcome = train(Processes(tree), folder / "ml")
    assert outcome.exit_code == 0, outcome.output
    return folder / "ml"


def payload_of(page: Page) -> dict:
    """The payload that the curl sample shows."""
    return json.loads(re.search(r"-d '([^']+)'", sample(page, "curl"))[1])


def sample(page: Page, title: str) -> str:
    """The text of a sample call."""
    return page.locator("article", has=page.get_by_role("heading", name=title, exact=True)).locator("code").text_content()


def predicted(endpoint: Endpoint, payload: dict) -> list:
    reply = endpoint.invoke(json.dumps(payload).encode(), "application/json")
    assert reply.status == 200, reply.text
    return json.loads(reply.body)["predictions"]


def shown(number: float) -> str:
    """A number as the page writes it."""
    return f"{float(f'{number:.6g}'):,}"


# ---- the form


def test_it_starts_with_a_stored_row_and_its_prediction(endpoint, open_page, manifest):
    page = open_page(endpoint)
    first = manifest["samples"][0]
    assert [float(page.input_value(f"#f{index}")) for index in range(6)] == list(first["row"].values())
    expect(page.locator("#answer")).to_have_text(shown(first["prediction"]))
    expect(page.locator("#answer-unit")).to_have_text("thousand dollars")
    assert page.title() == manifest["title"]


def test_the_image_that_serves_is_named_and_every_metric_has_its_cell(model_dir, manifest):
    environ = {"BERTH_VERSION": "1.2.3", "BERTH_REVISION": "0123456789abcdef"}
    page = make_pages(read_manifest(model_dir), Settings.from_environ(environ)).test_client().get("/").text
    assert "version 1.2.3" in page
    assert "0123456789ab</span>" in page
    rows = re.findall(r'<tr><th scope="row">(\w+)</th>((?:<td class="figure">[^<]*</td>)+)', page)
    shown_metrics = {name: re.findall(">([^<]+)<", cells) for name, cells in rows if name != "interval_coverage"}
    assert shown_metrics == {
        name: [figure(manifest["metrics"][f"{part}:{name}"]) for part in ("train", "validation")]
        for name in ("rmse", "mae", "r2")
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-0.5, "-0.5"),
        (24.855742, "24.8557"),
        (1234.5, "1,234.5"),
        (999999.6, "1,000,000"),
        (1e-7, "1.0000e-07"),
        (True, "True"),
        ("a", "a"),
    ],
)
def test_a_figure_has_six_digits_and_thousands_apart(value, text):
    assert figure(value) == text


def test_typing_predicts_what_invocations_answers(endpoint, open_page):
    page = open_page(endpoint)
    before = page.text_content("#answer")
    page.fill(RM, "")
    page.type(RM, "8.125")
    expect(page.locator("#answer")).not_to_have_text(before)
    assert payload_of(page)["instances"][0]["RM"] == 8.125
    (number,) = predicted(endpoint, payload_of(page))
    expect(page.locator("#answer")).to_have_text(shown(number))
    page.get_by_role("button", name="stored row 2").click()
    (number,) = predicted(endpoint, payload_of(page))
    expect(page.locator("#answer")).to_have_text(shown(number))


def test_the_newest_answer_wins_over_a_slower_older_one(endpoint, open_page):
    page = open_page(endpoint)
    held = []

    def hold(route):
        row = json.loads(route.request.post_data)["instances"]
        if len(row) == 1 and row[0][1] == 4:
            held.append(route)
        else:
            route.continue_()

    page.route("**/invocations", hold)
    with page.expect_request("**/invocations"):
        page.fill(RM, "4")
    page.fill(RM, "8")
    (number,) = predicted(endpoint, payload_of(page))
    expect(page.locator("#answer")).to_have_text(shown(number))
    for route in held:
        route.continue_()
    page.wait_for_timeout(300)
    expect(page.locator("#answer")).to_have_text(shown(number))
    assert len(held) == 1


@pytest.mark.parametrize(("entered", "word"), [("", "empty"), ("1e39", "float32")], ids=["empty", "too large"])
def test_an_error_of_the_server_stands_beside_the_field_it_names(endpoint, open_page, entered, word):
    page = open_page(endpoint)
    page.fill(RM, entered)
    error = page.locator("#f1-error")
    expect(error).to_contain_text("Row 1, column RM: ")
    expect(error).to_contain_text(word)
    assert page.get_attribute(RM, "aria-invalid") == "true"
    assert "f1-error" in page.get_attribute(RM, "aria-describedby")
    expect(page.locator("#answer-error")).to_contain_text("RM")
    page.fill(RM, "6")
    expect(error).to_have_text("")
    expect(page.locator("#answer-error")).to_have_text("")
    assert page.get_attribute(RM, "aria-invalid") == "false"


def test_a_server_that_is_gone_is_said_and_the_next_change_tries_again(trained, browser):
    page = browser.new_page()
    with serving(Processes(), trained, {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}) as running:
        page.goto(running.program.url)
        page.wait_for_selector("#curves svg")
        page.route("**/invocations", lambda route: route.abort())
        page.fill(RM, "7")
        expect(page.locator("#answer-error")).to_contain_text("can't be reached")
        page.unroute("**/invocations")
        page.fill(RM, "7.5")
        expect(page.locator("#answer-error")).to_have_text("")
    page.close()


def test_a_value_that_training_has_not_seen_is_hinted_at(endpoint, open_page):
    page = open_page(endpoint)
    expect(page.locator("#f1-hint")).to_have_text("")
    page.fill(RM, "30")
    expect(page.locator("#f1-hint")).to_have_text("Outside what training saw, 3.561 to 8.78: take the answer with care.")
    page.fill(RM, "5")
    expect(page.locator("#f1-hint")).to_have_text("")


# ---- intervals, the report


INTERVALS = {"level": 0.9, "half_width": 2.5, "rows": 102, "method": "split-conformal"}
REPORT = """<!doctype html><html lang="en"><title>Report</title><style>h1 { color: rgb(1, 2, 3) }</style>
<h1>How it went</h1><p style="margin: 7px">In line</p><svg width="10" height="10"><rect width="10" height="10"/></svg>
<img alt="" src="data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' width='3' height='3'/>">
<script>document.title = "owned"</script>"""


@pytest.fixture(scope="module")
def wide(trained, tmp_path_factory) -> Iterator[Endpoint]:
    """A model with intervals and a report, its server told to answer intervals to all who say nothing."""
    base = tmp_path_factory.mktemp("wide") / "ml"
    shutil.copytree(trained, base)
    report = base / "model" / "report" / "report.html"
    report.parent.mkdir(exist_ok=True)
    report.write_text(REPORT)
    manifest = read_manifest(trained / "model")
    names = list(dict.fromkeys([*manifest.files, "report/report.html"]))
    write_manifest(base / "model", replace(manifest, intervals=INTERVALS), names)
    with serving(Processes(), base, {"SAGEMAKER_MODEL_SERVER_WORKERS": "1", "BERTH_INTERVALS": "true"}) as running:
        yield running


def test_a_prediction_stands_with_its_interval_and_all_else_goes_on(wide, open_page):
    page = open_page(wide)
    page.fill(RM, "8.125")
    (answer,) = predicted(wide, payload_of(page))
    expect(page.locator("#answer")).to_have_text(shown(answer["prediction"]))
    expect(page.locator("#interval")).to_have_text(f"90 % interval: {shown(answer['low'])} to {shown(answer['high'])}")
    expect(page.locator("#curves figure")).to_have_count(6)
    page.set_input_files(
        "#file", {"name": "two.csv", "mimeType": "text/csv", "buffer": b"0,6.575,296,15.3,396.9,4.98\n0,6,242,17.8,396.9,9"}
    )
    expect(page.locator("#batch-status")).to_contain_text("2 rows predicted")
    assert all(float(row[-1]) > 0 for row in download(page)[1][1:])


def test_without_a_script_the_interval_is_that_of_the_stored_row(wide, open_page, manifest):
    page = open_page(wide, java_script_enabled=False)
    prediction = manifest["samples"][0]["prediction"]
    expect(page.locator("#interval")).to_have_text(f"90 % interval: {shown(prediction - 2.5)} to {shown(prediction + 2.5)}")
    expect(page.locator("#model")).to_contain_text("reaches 2.5 (thousand dollars) to each side")


def test_the_report_opens_with_its_styles_and_drawings_and_runs_nothing(wide, browser):
    page = browser.new_page()
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(wide.program.url)
    page.get_by_role("link", name="Report", exact=True).click()
    page.wait_for_url("**/report")
    expect(page.locator("h1")).to_have_css("color", "rgb(1, 2, 3)")
    expect(page.locator("p")).to_have_css("margin-top", "7px")
    assert page.locator("svg").bounding_box()["width"] == 10
    assert page.locator("img").evaluate("image => image.naturalWidth") == 3
    assert page.title() == "Report"
    assert all("script" in text.lower() for text in said)
    page.close()


# ---- the charts


def points(page: Page, index: int) -> list[list[float]]:
    """The drawn points of a feature's curve."""
    drawn = page.locator("#curves figure").nth(index).locator("polyline").get_attribute("points")
    return [[float(part) for part in point.split(",")] for point in drawn.split()]


def test_a_chart_a_feature_shows_how_the_prediction_moves(endpoint, open_page):
    page = open_page(endpoint)
    figures = page.locator("#curves figure")
    expect(figures).to_have_count(6)
    assert figures.locator("figcaption b").all_text_contents() == NAMES
    before = [points(page, index) for index in range(6)]
    assert {len(curve) for curve in before} == {42}
    assert len({y for _, y in before[1]}) > 5
    dot = figures.nth(1).locator("circle")
    place = float(dot.get_attribute("cx"))
    page.fill(RM, "8")
    expect(dot).not_to_have_attribute("cx", str(place))
    assert float(dot.get_attribute("cx")) > place
    assert points(page, 5) != before[5]


def test_a_chart_says_in_words_what_it_draws(endpoint, open_page):
    page = open_page(endpoint)
    row = payload_of(page)["instances"][0]
    words = page.locator("#curves svg").nth(1).get_attribute("aria-label")
    low, at = re.match(
        r"MEDV along RM, rooms\. Lowest ([\d.]+) at ([\d.]+), highest .*; 24.86 at the entered 6.575\.", words
    ).groups()
    (number,) = predicted(endpoint, {"instances": [{**row, "RM": float(at)}]})
    assert float(low) == pytest.approx(number, rel=1e-3)


def test_a_point_beyond_training_widens_its_chart(endpoint, open_page):
    page = open_page(endpoint)
    page.fill(RM, "30")
    expect(page.locator("#curves figure").nth(1).locator("rect.outside")).to_have_count(1)
    expect(page.locator("#curves figure").nth(1).locator("text.now")).to_have_text("30")


# ---- categories, missing values, classes


def test_the_page_follows_another_declaration(penguins, open_page):
    page = open_page(penguins)
    text = page.content()
    assert not re.search("housing|MEDV|LSTAT|Boston", text, re.IGNORECASE)
    assert page.locator("#fields label b").all_text_contents() == [
        "island", "bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g", "sex",
    ]  # fmt: skip
    assert page.locator("#f0 option").all_text_contents() == ["Biscoe", "Dream", "Torgersen"]
    assert page.locator("#f5 option").all_text_contents() == ["female", "male", "(missing)"]


def test_a_class_is_a_label_with_the_probability_of_each(penguins, open_page):
    page = open_page(penguins)
    page.select_option("#f0", "Biscoe")
    page.fill("#f1", "47")
    page.fill("#f3", "219")
    page.select_option("#f5", "")
    expect(page.locator("#answer")).to_have_text("Gentoo")
    payload = payload_of(page)
    assert payload["instances"][0]["sex"] is None
    (answer,) = predicted(penguins, payload)
    assert answer["label"] == "Gentoo"
    rows = page.locator("#probabilities tr")
    assert rows.locator("th").all_text_contents() == list(answer["probabilities"])
    assert rows.locator("td.figure").all_text_contents() == [f"{100 * p:.1f} %" for p in answer["probabilities"].values()]
    bars = rows.locator("progress").evaluate_all("bars => bars.map((bar) => bar.value)")
    assert bars == pytest.approx(list(answer["probabilities"].values()))
    expect(page.locator("#answer-unit")).to_have_text(f"{100 * answer['probabilities']['Gentoo']:.1f} %")


def test_a_missing_number_is_a_state_of_its_own(penguins, open_page):
    page = open_page(penguins)
    page.get_by_label("bill_length_mm is missing").check()
    expect(page.locator("#f1")).to_be_disabled()
    assert payload_of(page)["instances"][0]["bill_length_mm"] is None
    chart = page.locator("#curves figure").nth(1)
    expect(chart.locator("text.now")).to_have_text("missing")
    expect(chart.locator("circle")).to_have_count(0)
    expect(page.locator("#answer-error")).to_have_text("")
    page.get_by_label("bill_length_mm is missing").uncheck()
    expect(page.locator("#f1")).to_be_enabled()
    assert payload_of(page)["instances"][0]["bill_length_mm"] == 39.1


def test_categories_are_bars_with_the_entered_one_marked(penguins, open_page):
    page = open_page(penguins)
    island, sex = page.locator("#curves figure").nth(0), page.locator("#curves figure").nth(5)
    expect(island.locator("rect.bar")).to_have_count(3)
    expect(sex.locator("rect.bar")).to_have_count(3)
    page.select_option("#f5", "")
    expect(sex.locator("rect.bar.now title")).to_contain_text("missing: ")
    assert "probability of Adelie along island" in island.locator("svg").get_attribute("aria-label")


# ---- the batch box


def table(page: Page) -> list[list[str]]:
    """The cells of the table that the batch box shows, its header first."""
    page.wait_for_selector("#batch-table:not([hidden]) table")
    return page.locator("#batch-table tr").evaluate_all(
        "rows => rows.map((row) => [...row.cells].map((cell) => cell.textContent))"
    )


def download(page: Page) -> tuple[str, list[list[str]]]:
    """The name and the cells of the file that the batch box gives back."""
    with page.expect_download() as caught:
        page.click("#download")
    return caught.value.suggested_filename, list(csv.reader(io.StringIO(Path(caught.value.path()).read_text())))


def put(page: Page, text: str, name: str = "rows.csv") -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "text/csv", "buffer": text.encode()})


def test_the_training_file_comes_back_with_a_prediction_a_row(endpoint, open_page):
    (path,) = SAMPLE.glob("*.csv")
    rows = list(csv.reader(io.StringIO(path.read_text())))
    page = open_page(endpoint)
    page.set_input_files("#file", str(path))
    cells = table(page)
    assert cells[0] == ["row", *rows[0], "prediction"]
    assert len(cells) == 201
    expect(page.locator("#batch-status")).to_have_text(f"{path.name}: {len(rows) - 1} rows predicted; the first 200 are shown.")
    name, downloaded = download(page)
    assert name == f"{path.stem}-predictions.csv"
    assert [row[:-1] for row in downloaded] == rows
    chosen = [[row[rows[0].index(column)] for column in NAMES] for row in rows[1:]]
    answers = endpoint.invoke("\n".join(map(",".join, chosen)).encode()).text.split("\n")
    assert [float(row[-1]) for row in downloaded[1:]] == [float(answer) for answer in answers]


FILES = {
    "no header": "0,6.575,296,15.3,396.9,4.98\r\n0,6,242,17.8,396.9,9\r\n\r\n",
    "a header in another order": "LSTAT,CHAS,RM,TAX,PTRATIO,B\n4.98,0,6.575,296,15.3,396.9\n9,0,6,242,17.8,396.9\n",
    "quotes and a byte-order mark": '\ufeff"CHAS",RM,TAX,PTRATIO,B,LSTAT\n"0",6.575,296,15.3,396.9,4.98\n0,6,242,17.8,396.9,9',
    "more columns": 'RM,"a, ""b""",LSTAT,CHAS,TAX,PTRATIO,B\n6.575,"x\ny",4.98,0,296,15.3,396.9\n6,,9,0,242,17.8,396.9\n',
}


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_a_file_is_read_as_the_server_reads_it(endpoint, open_page, text):
    page = open_page(endpoint)
    put(page, text)
    expected = predicted(endpoint, {"instances": [[0, 6.575, 296, 15.3, 396.9, 4.98], [0, 6, 242, 17.8, 396.9, 9]]})
    cells = table(page)
    assert [row[-1] for row in cells[1:]] == [shown(number) for number in expected]
    _, downloaded = download(page)
    given = list(csv.reader(io.StringIO(text.lstrip("\ufeff"))))
    assert [row[:-1] for row in downloaded] == [row for row in [*([NAMES] if text[0] == "0" else []), *given] if row]
    assert [float(row[-1]) for row in downloaded[1:]] == pytest.approx(expected)


DROP = """([text, name]) => {
  const data = new DataTransfer();
  data.items.add(new File([text], name, { type: "text/csv" }));
  for (const kind of ["dragover", "drop"])
    document.getElementById("drop").dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
}"""


def test_a_dropped_file_of_classes_gets_a_label_and_its_probabilities(penguins, open_page):
    page = open_page(penguins)
    page.evaluate(DROP, ["Torgersen,39.1,18.7,181,3750,male\nBiscoe,,,,,\n", "two.csv"])
    cells = table(page)
    labels = ["Adelie", "Chinstrap", "Gentoo"]
    assert cells[0][-4:] == ["prediction", *(f"probability {label}" for label in labels)]
    answers = predicted(penguins, {"instances": [["Torgersen", 39.1, 18.7, 181, 3750, "male"], ["Biscoe", *[None] * 5]]})
    _, downloaded = download(page)
    assert [row[-4] for row in downloaded[1:]] == [answer["label"] for answer in answers]
    assert [float(cell) for cell in downloaded[2][-3:]] == pytest.approx(list(answers[1]["probabilities"].values()))


def test_an_error_names_row_and_column_and_shows_the_cell(endpoint, open_page):
    page = open_page(endpoint)
    put(page, f"{','.join(NAMES)}\n0,6,296,15.3,396.9,4.98\n0,six,296,15.3,396.9,4.98\n")
    expect(page.locator("#batch-error")).to_contain_text("Row 2, column RM: 'six' is not a finite number")
    expect(page.locator("#batch-table td.wrong")).to_have_text("six")
    expect(page.locator("#download")).to_be_hidden()
    put(page, "1,2,3\n")
    expect(page.locator("#batch-error")).to_contain_text("Row 1 has 3 values; the model takes 6")
    put(page, "")
    expect(page.locator("#batch-error")).to_contain_text("empty")
    put(page, '"unclosed\n')
    expect(page.locator("#batch-error")).to_contain_text("not CSV")
    put(page, "0,6,296,15.3,396.9,4.98\n")
    expect(page.locator("#batch-error")).to_have_text("")
    assert len(table(page)) == 2


# ---- calls to copy


def run(command: list[str], folder: Path, **environ: str) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, "NO_PROXY": "*", **environ}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def entered(penguins, open_page) -> Page:
    """A page whose row is no stored one and holds a missing value."""
    page = open_page(penguins, permissions=["clipboard-read", "clipboard-write"])
    page.fill("#f1", "47.25")
    page.select_option("#f5", "")
    return page


def copied(page: Page, title: str) -> str:
    page.get_by_role("button", name=f"Copy the {title} sample").click()
    expect(page.locator("#copied")).to_have_text(f"{title} sample copied.")
    text = page.evaluate("navigator.clipboard.readText()")
    assert text == sample(page, title)
    return text


def test_the_curl_call_runs_as_it_is_copied(entered, penguins, tmp_path):
    output = run(["bash", "-ec", copied(entered, "curl")], tmp_path)
    assert json.loads(output)["predictions"] == predicted(penguins, payload_of(entered))


def test_the_python_call_runs_as_it_is_copied(entered, penguins, tmp_path):
    output = run([sys.executable, "-c", copied(entered, "Python")], tmp_path)
    assert output.strip() == str(predicted(penguins, payload_of(entered)))


@pytest.fixture
def runtime(penguins) -> Iterator[str]:
    """The address of SageMaker's runtime: what it takes at /endpoints/NAME/invocations goes to the server."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            named = self.path == "/endpoints/penguins/invocations"
            reply = penguins.invoke(body, self.headers["Content-Type"], path="/invocations" if named else self.path)
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.headers["content-type"])
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, *_) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_the_boto3_call_runs_as_it_is_copied(entered, penguins, runtime, tmp_path):
    keys = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_DEFAULT_REGION": "eu-west-1"}
    script = copied(entered, "boto3")
    output = run([sys.executable, "-c", script], tmp_path, AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME=runtime, **keys)
    assert output.strip() == str(predicted(penguins, payload_of(entered)))


# A stand-in for the AWS CLI 2 as its reference has it: a blob is base64 unless raw-in-base64-out is said; fileb:// is bytes.
AWS = """#!{python}
import argparse, base64, os, pathlib, urllib.request
parser = argparse.ArgumentParser(allow_abbrev=False)
parser.add_argument("service", choices=["sagemaker-runtime"])
parser.add_argument("operation", choices=["invoke-endpoint"])
for option in ("endpoint-name", "body", "content-type"):
    parser.add_argument("--" + option, required=True)
parser.add_argument("--cli-binary-format", default="base64", choices=["base64", "raw-in-base64-out"])
parser.add_argument("outfile", type=pathlib.Path)
given = parser.parse_args()
if given.body.startswith("fileb://"):
    body = pathlib.Path(given.body.removeprefix("fileb://")).read_bytes()
else:
    body = given.body.encode() if given.cli_binary_format != "base64" else base64.b64decode(given.body, validate=True)
url = "{runtime}/endpoints/" + given.endpoint_name + "/invocations"
request = urllib.request.Request(url, body, {{"Content-Type": given.content_type}})
given.outfile.write_bytes(urllib.request.urlopen(request).read())
"""


def test_both_aws_cli_calls_run_as_they_are_copied(entered, penguins, runtime, tmp_path):
    (tmp_path / "aws").write_text(AWS.format(python=sys.executable, runtime=runtime))
    (tmp_path / "aws").chmod(0o755)
    output = run(["bash", "-ec", copied(entered, "AWS CLI")], tmp_path, PATH=f"{tmp_path}:{os.environ['PATH']}")
    expected = predicted(penguins, payload_of(entered))
    assert json.loads(output)["predictions"] == expected
    assert json.loads((tmp_path / "answer.json").read_bytes())["predictions"] == expected


def test_without_a_secure_context_copying_still_works(endpoint, open_page):
    page = open_page(endpoint)
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.evaluate("document.addEventListener('copy', () => { window.taken = getSelection().toString(); })")
    page.get_by_role("button", name="Copy the curl sample").click()
    assert page.evaluate("window.taken") == sample(page, "curl")


# ---- safety

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


def assets(endpoint: Endpoint) -> list[str]:
    return re.findall(r'(?:href|src)="(static/[^"]+)"', endpoint.get("/").text)


def test_every_page_forbids_what_it_does_not_need(endpoint):
    for path in ("/", "/metadata", "/nothing", "/" + assets(endpoint)[0]):
        headers = endpoint.get(path).headers
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


def test_the_page_has_no_script_and_no_style_in_line(endpoint):
    page = endpoint.get("/").text
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page)
    assert re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL) == [""]
    assert "http" not in re.sub(r"<pre.*?</pre>", "", page, flags=re.DOTALL)


def test_an_injected_script_does_not_run(endpoint, browser):
    page = browser.new_page()
    blocked = []
    page.on("console", lambda message: blocked.append(message.text) if "Content Security Policy" in message.text else None)
    page.goto(endpoint.program.url)
    page.wait_for_selector("#curves svg")
    assert blocked == []
    page.evaluate("""() => {
      const script = document.createElement("script");
      script.textContent = "window.owned = 1";
      document.body.append(script);
      document.body.insertAdjacentHTML("beforeend", "<img src='data:x,' onerror='window.owned = 2'><p style='color:red'>");
    }""")
    page.wait_for_timeout(200)
    assert page.evaluate("window.owned") is None
    assert len(blocked) >= 2
    page.close()


def test_assets_are_kept_for_good_and_change_their_address_when_they_change(endpoint):
    found = assets(endpoint)
    assert {path.rpartition(".")[2] for path in found} == {"css", "js", "svg"}
    folder = found[0].rpartition("/")[0]
    kinds = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    for name in sorted(path.name for path in (ROOT / "serving" / "static").iterdir()):
        reply = endpoint.get(f"/{folder}/{name}")
        assert reply.status == 200
        assert reply.headers["content-type"].split(";")[0] == kinds[name.rpartition(".")[2]]
        assert reply.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert reply.body == (ROOT / "serving" / "static" / name).read_bytes()
    assert endpoint.get("/static/old/page.js").headers["cache-control"] == "no-store"
    for path in (
        f"/{folder}/../pages.py",
        f"/{folder}/..%2fpages.py",
        f"/{folder}/nothing.js",
        "/static/page.js",
        f"/{folder}/",
    ):
        assert endpoint.get(path).status == 404
    assert endpoint.get("/").headers["cache-control"] == "no-cache"


HOSTILE = r"""
from contract.declaration import Feature, Target

NAME = "hostile"
TITLE = "</title><script>alert('title')</script>"
ABOUT = "\"><img src=x onerror=alert('about')> {{ 7 * 7 }}"
FEATURES = (
    Feature("<script>alert(1)</script>", "</script><script>alert(2)</script>", unit="<b>'\"`"),
    Feature("</script>'\"", "\" onfocus=alert(3) autofocus x=\"", kind="category", nullable=True,
            choices=("\"><img src=x onerror=alert(4)>", "it's $(touch owned) `touch owned` \\ & <b>")),
    Feature("@url@ @json@ $& ${x} %s {}", "C:\\new \u2028 line", nullable=True),
    Feature("__proto__", "constructor"),
)
TARGET = Target("<i>kind</i>", "<svg onload=alert(5)>", kind="class", labels=("</script><b>yes</b>", "'; touch owned; '\"\\"))
"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    module: dict = {}
    exec(HOSTILE, module)
    features, target = module["FEATURES"], module["TARGET"]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*(feature.name for feature in features), target.name])
    for index in range(80):
        writer.writerow([index, features[1].choices[index % 2], index % 7, index % 5, target.labels[index // 40]])
    base = train_another(tmp_path_factory.mktemp("hostile"), HOSTILE, text.getvalue())
    with serving(Processes(), base, {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}) as running:
        yield running


def test_hostile_names_are_text_and_nothing_else(hostile, open_page):
    page = open_page(hostile)  # any dialog or violation fails it
    known = json.loads(hostile.get("/metadata").body)
    assert page.text_content("h1") == page.title() == known["title"]
    assert page.text_content(".about") == known["about"]
    assert page.locator("#fields label b").all_text_contents() == [feature["name"] for feature in known["features"]]
    assert page.locator("#f1 option").all_text_contents() == [*known["features"][1]["choices"], "(missing)"]
    page.select_option("#f1", index=1)
    page.fill("#f0", "79")
    expect(page.locator("#answer")).to_have_text(known["labels"][1])
    assert page.locator("#probabilities th").all_text_contents() == known["labels"]
    put(page, '70,"it\'s $(touch owned) `touch owned` \\ & <b>",1,1\n')
    assert table(page)[1][2] == known["features"][1]["choices"][1]
    assert page.locator("main script, main img, main i, main svg[onload], [autofocus]").count() == 0


def test_calls_with_hostile_names_still_run_and_do_nothing_else(hostile, open_page, tmp_path):
    page = open_page(hostile)
    page.select_option("#f1", index=1)
    page.fill("#f0", "79")
    expected = predicted(hostile, payload_of(page))
    assert json.loads(run(["bash", "-ec", sample(page, "curl")], tmp_path))["predictions"] == expected
    assert run([sys.executable, "-c", sample(page, "Python")], tmp_path).strip() == str(expected)
    assert list(tmp_path.iterdir()) == []


# ---- without a mouse, a screen, a script, a root path


def test_every_control_is_reached_by_the_tab_key_and_seen(penguins, open_page):
    page = open_page(penguins, viewport={"width": 1280, "height": 900})
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.url.endswith("#try")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.sample") == "0"
    page.keyboard.press("Enter")
    visited, unseen = [], []
    page.reload()
    page.wait_for_selector("#curves svg")
    for _ in range(80):
        page.keyboard.press("Tab")
        key, is_seen = page.evaluate("""() => {
          const at = document.activeElement, style = getComputedStyle(at);
          const key = [...document.querySelectorAll("*")].indexOf(at);
          return [at === document.body ? -1 : key, style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0];
        }""")
        if key == -1 or key in visited:
            break
        visited.append(key)
        if not is_seen:
            unseen.append(key)
    wanted = page.evaluate("""() => {
      const all = [...document.querySelectorAll("*")];
      const controls = all.filter((one) => one.matches("a[href], button, input, select") && !one.disabled
        && one.checkVisibility());
      return controls.map((one) => all.indexOf(one));
    }""")
    assert [key for key in wanted if key not in visited] == []
    assert unseen == []


def test_a_row_is_entered_and_predicted_by_keys_alone(penguins, open_page):
    page = open_page(penguins)
    page.focus("#f0")
    page.keyboard.press("ArrowUp")  # a select
    page.keyboard.press("Tab")
    page.keyboard.type("50")  # a tab selects the old number
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")  # bill_depth_mm is missing
    row = payload_of(page)["instances"][0]
    assert (row["island"], row["bill_length_mm"], row["bill_depth_mm"]) == ("Dream", 50, None)
    (answer,) = predicted(penguins, payload_of(page))
    expect(page.locator("#answer")).to_have_text(answer["label"])


def test_a_screen_reader_finds_names_captions_and_live_parts(penguins, open_page):
    page = open_page(penguins)
    put(page, "Biscoe,,,,,\n")
    table(page)
    nameless = page.evaluate("""() => [...document.querySelectorAll("input, select, button")].filter((one) =>
      !(one.getAttribute("aria-label") || one.textContent.trim() && one.matches("button") || one.labels?.length)).length""")
    assert nameless == 0
    assert page.locator("table:not(:has(caption))").count() == 0
    assert page.locator("svg:not([role=img][aria-label])").count() == 0
    assert page.locator("html[lang=en] main h1, header h1").count() == 1
    assert page.locator(".answer[role=status], #batch-status[role=status], #batch-error[role=alert]").count() == 3
    ids = page.locator("[id]").evaluate_all("all => all.map((one) => one.id)")
    assert len(ids) == len(set(ids))
    described = page.locator("[aria-describedby]").evaluate_all(
        "all => all.flatMap((one) => one.getAttribute('aria-describedby').split(' '))"
    )
    assert set(described) <= set(ids)


# WCAG 2, success criterion 1.4.3: the ratio of relative luminances of text and what is behind it.
CONTRAST = """() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  const luminance = (rgb) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, index) => sum + weight * linear(rgb[index] / 255), 0)
  const behind = (one) => {
    for (; one; one = one.parentElement) {
      const color = parse(getComputedStyle(one).backgroundColor);
      if (color.length < 4 || color[3] > 0.99) return color;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const one of document.querySelectorAll("body *")) {
    const hasText = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!hasText || one.disabled || one.closest("noscript, title") || !one.checkVisibility()) continue;
    const style = getComputedStyle(one);
    const [front, back] = [parse(one.closest("svg") ? style.fill : style.color), behind(one)].map(luminance);
    const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    if (ratio < 4.5) poor.push(`${one.tagName} ${one.className} ${one.textContent.slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return poor;
}"""


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("which", ["endpoint", "penguins", "hostile"])
def test_it_is_readable_in_light_and_dark_at_every_width(request, open_page, which, scheme, width):
    page = open_page(request.getfixturevalue(which), viewport={"width": width, "height": 800}, color_scheme=scheme)
    rows = {"endpoint": "0,6.575,296,15.3,396.9,4.98\n", "penguins": "Biscoe,,,,,\n", "hostile": "1,,,1\n"}
    put(page, 30 * rows[which])
    table(page)
    if which == "endpoint":
        page.fill(LSTAT, "80")
        page.fill("#f2", "")
        expect(page.locator("#f2-error")).not_to_have_text("")
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{'housing' if which == 'endpoint' else which}-{scheme}-{width}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(CONTRAST) == []


def test_without_javascript_it_is_a_page_to_read(endpoint, open_page, manifest, tmp_path):
    page = open_page(endpoint, java_script_enabled=False)
    expect(page.locator("noscript p")).to_be_visible()
    first = manifest["samples"][0]
    expect(page.locator("#answer")).to_have_text(shown(first["prediction"]))
    for feature in manifest["features"]:
        expect(page.locator("#fields")).to_contain_text(feature["meaning"].rstrip("."))
    for part in (".curves", "#batch", ".copy >> nth=0", ".presets"):
        expect(page.locator(part)).to_be_hidden()
    command = sample(page, "curl").replace("http://localhost:8080", endpoint.program.url)
    assert json.loads(run(["bash", "-ec", command], tmp_path))["predictions"] == pytest.approx([first["prediction"]], abs=1e-3)


def test_script_and_server_write_the_same_samples(penguins, open_page):
    texts = {name: [] for name in ("curl", "Python", "boto3", "AWS CLI")}
    for enabled in (False, True):
        page = open_page(penguins, java_script_enabled=enabled)
        for title, found in texts.items():
            found.append(sample(page, title).replace("http://localhost:8080", penguins.program.url))
    assert [title for title, (server, script) in texts.items() if server != script] == []


def test_it_works_below_a_prefix(endpoint, browser):
    page = browser.new_page()

    def forward(route):
        inner = route.request.url.replace("/proxy/8080", "")
        route.fulfill(response=route.fetch(url=inner)) if inner != route.request.url else route.abort()

    page.route("**/*", forward)
    page.goto(endpoint.program.url + "/proxy/8080/")
    page.wait_for_selector("#curves svg")
    page.fill(RM, "8")
    (number,) = predicted(endpoint, payload_of(page))
    expect(page.locator("#answer")).to_have_text(shown(number))
    assert "/proxy/8080/invocations" in sample(page, "curl")
    with page.expect_navigation():
        page.get_by_role("link", name="Metadata").click()
    assert json.loads(page.text_content("body"))["name"] == "boston-housing"
    page.close()


def test_the_assets_are_small(endpoint):
    sizes = {path.name: path.stat().st_size for path in (ROOT / "serving" / "static").iterdir()}
    assert sum(sizes.values()) < 40_000, sizes
    with urllib.request.urlopen(endpoint.program.url) as reply:
        assert len(reply.read()) < 40_000
