"""A multi-model endpoint through real HTTP: models come, answer and go; nothing else is lost, mixed up or kept in memory."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import random
import resource
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from ahead import ahead, scratch

from contract.errors import BerthError, NoRoom
from local_test.emulator import Endpoint, Reply, serving
from local_test.payloads import csv_body, json_body, parquet_body
from local_test.runners import Containers, Processes
from local_test.soak.multimodel import FrontEnd, cycle, faults, is_right, resident_bytes, train_schemas
from serving.models import FIXED_BYTES, KEPT_TIMES, Models, find_model
from serving.settings import MIB, Settings

MULTI = {"SAGEMAKER_MULTI_MODEL": "true"}
CSV, JSON = "text/csv", "application/json"


@ahead
def schemas() -> dict[str, Path]:
    """Three models of about 1 MB, of three schemas."""
    folders = train_schemas(scratch())
    return dict(zip(("housing", "numbers", "classes"), folders, strict=True))


@pytest.fixture(scope="module")
def common() -> Iterator[tuple[Path, Endpoint]]:
    """An /opt/ml that holds those of all tests, on the disk of the models they link to, and a server that most tests share."""
    folder = scratch()
    with serving(Processes(), folder, MULTI) as running:
        yield folder, running


@pytest.fixture
def base(common: tuple[Path, Endpoint], schemas: Mapping[str, Path], model_dir: Path) -> Path:
    """An /opt/ml whose models/ has the three, and a fourth of the first one's schema that answers otherwise."""
    folder = common[0] / f"test{len(list(common[0].iterdir()))}"
    for name, source in {**schemas, "other": model_dir}.items():
        shutil.copytree(source, folder / "models" / name / "model", copy_function=os.link)
    return folder


@pytest.fixture
def server(common: tuple[Path, Endpoint]) -> Iterator[Endpoint]:
    """The common server; what a test leaves loaded is unloaded."""
    yield common[1]
    while left := json.loads(common[1].get("/models").body)["models"]:
        for entry in left:
            assert common[1].delete(path(entry["modelName"])).status == 200


@pytest.fixture
def fresh(base: Path) -> Iterator[Endpoint]:
    """A server of the test's own."""
    with serving(Processes(), base, MULTI) as running:
        yield running


def load(server: Endpoint, base: Path, name: str, folder: str = "", url: str = "") -> Reply:
    document = {"model_name": name, "url": url or str(base / "models" / (folder or name) / "model")}
    return server.invoke(json.dumps(document).encode(), JSON, path="/models")


def path(name: str, rest: str = "") -> str:
    return f"/models/{quote(name, safe='')}{rest}"


def manifest(base: Path, folder: str) -> dict[str, Any]:
    return json.loads((base / "models" / folder / "model" / "manifest.json").read_text())


def ask(server: Endpoint, base: Path, name: str, folder: str = "") -> Reply:
    return server.invoke(json_body(manifest(base, folder or name)), JSON, path=path(name, "/invoke"))


def answers(server: Endpoint, base: Path, name: str, folder: str = "") -> bool:
    return is_right(ask(server, base, name, folder), manifest(base, folder or name))


def error(reply: Reply) -> tuple[int, str]:
    return reply.status, json.loads(reply.body)["error"]


# ---- a model's life


def test_a_model_is_loaded_listed_described_asked_and_unloaded(server: Endpoint, base: Path) -> None:
    entry = {"modelName": "housing", "modelUrl": str(base / "models" / "housing" / "model")}
    assert server.ping().status == 200
    assert json.loads(server.get("/models").body) == {"models": []}
    assert error(server.get("/models/housing")) == error(ask(server, base, "housing")) == (404, "not_found")
    reply = load(server, base, "housing")
    assert (reply.status, json.loads(reply.body)) == (200, entry)
    assert json.loads(server.get("/models").body) == {"models": [entry]}
    assert json.loads(server.get("/models/housing").body) == entry
    assert answers(server, base, "housing")
    assert server.delete("/models/housing").status == 200
    assert error(server.delete("/models/housing")) == error(ask(server, base, "housing")) == (404, "not_found")
    assert json.loads(server.get("/models").body) == {"models": []}
    assert load(server, base, "housing").status == 200
    assert answers(server, base, "housing")


def test_models_of_different_schemas_answer_side_by_side_in_every_form(server: Endpoint, base: Path) -> None:
    for name in ("housing", "numbers", "classes", "other"):
        assert load(server, base, name).status == 200
    assert all(answers(server, base, name) for name in ("housing", "numbers", "classes", "other"))
    labels = server.invoke(csv_body(manifest(base, "classes")), CSV, path=path("classes", "/invoke")).text.split("\n")
    assert [line[0] for line in labels] == [sample["prediction"]["label"] for sample in manifest(base, "classes")["samples"]]
    for name in ("housing", "classes"):
        body = parquet_body(manifest(base, name))
        assert is_right(server.invoke(body, "application/x-parquet", path=path(name, "/invoke")), manifest(base, name))
    mixed_up = server.invoke(csv_body(manifest(base, "classes")), CSV, path=path("numbers", "/invoke"))
    assert error(mixed_up) == (400, "schema_mismatch")


def test_a_name_that_is_loaded_is_409_and_the_model_stays(server: Endpoint, base: Path) -> None:
    assert load(server, base, "housing").status == 200
    assert error(load(server, base, "housing", "numbers")) == (409, "model_loaded")
    assert answers(server, base, "housing")


def test_of_many_loads_of_one_name_at_once_one_wins(server: Endpoint, base: Path) -> None:
    replies: list[Reply] = []
    threads = [threading.Thread(target=lambda: replies.append(load(server, base, "numbers"))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(reply.status for reply in replies) == [200] + [409] * 11
    assert answers(server, base, "numbers")


@pytest.mark.parametrize(
    "name",
    [
        "a/b",
        "../..",
        "..",
        "a b",
        "%2F",
        "a%2Fb",
        "ü/日本",
        "invoke",
        "x/invoke",
        "?next_page_token=1",
        "#",
        "<b>",
        "a\nb",
        "\0",
        "'",
    ],
)
def test_a_name_is_any_text(server: Endpoint, base: Path, name: str) -> None:
    for loaded, folder in ((name, "housing"), (name + "2", "numbers")):
        assert load(server, base, loaded, folder).status == 200
        assert json.loads(server.get(path(loaded)).body)["modelName"] == loaded
        assert answers(server, base, loaded, folder)
    assert {entry["modelName"] for entry in json.loads(server.get("/models").body)["models"]} == {name, name + "2"}
    assert "<b>" not in server.get("/").text
    assert server.delete(path(name)).status == 200
    assert error(ask(server, base, name, "housing")) == (404, "not_found")
    assert answers(server, base, name + "2", "numbers")


def test_the_list_comes_in_pages_whatever_comes_and_goes_between_them(server: Endpoint, base: Path) -> None:
    names = [f"m{index:03}" for index in range(120)]
    for name in names:
        assert load(server, base, name, "other").status == 200
    first = json.loads(server.get("/models").body)
    assert server.delete("/models/m000").status == server.delete("/models/m119").status == 200
    assert load(server, base, "a", "other").status == 200
    second = json.loads(server.get(f"/models?next_page_token={quote(first['nextPageToken'])}").body)
    assert [entry["modelName"] for entry in first["models"]] == names[:100]
    assert [entry["modelName"] for entry in second["models"]] == names[100:119]
    assert "nextPageToken" not in second
    assert error(server.get("/models?next_page_token=%C3%BC")) == (400, "unreadable_body")


# ---- loads that fail


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"5", b"{}", b"\xff", b"[" * 60_000),
        *(b'{"model_name": "a"}', b'{"url": "/"}', b'{"model_name": "", "url": "/"}', b'{"model_name": 5, "url": "/"}'),
        *(b'{"model_name": "\\ud800", "url": "/"}', json.dumps({"model_name": "x" * 257, "url": "/"}).encode()),
    ],
)
def test_a_load_that_names_no_model_is_400(server: Endpoint, body: bytes) -> None:
    assert error(server.invoke(body, JSON, path="/models")) == (400, "unreadable_body")


def test_a_folder_that_is_not_there_or_not_below_the_base_is_404(server: Endpoint, base: Path, tmp_path_factory) -> None:
    (base / "models" / "link").symlink_to(tmp_path_factory.getbasetemp())
    impossible = ("\0", f"{base}/models/{'x' * 300}")
    for url in (
        f"{base}/models/none",
        "/",
        str(Path.home()),
        "models/housing",
        f"{base}/models/link",
        f"{base}/../..",
        *impossible,
    ):
        assert error(load(server, base, "x", url=url)) == (404, "not_found"), url


def test_the_folder_may_be_that_of_the_manifest_or_hold_it(server: Endpoint, base: Path) -> None:
    assert load(server, base, "above", url=str(base / "models" / "housing")).status == 200
    assert load(server, base, "exact", "housing").status == 200
    assert answers(server, base, "above", "housing")
    assert json.loads(load(server, base, "all", url=str(base / "models")).body)["error"] == "unloadable_model"


def spoil(folder: Path, damage: str) -> None:
    """Damage a model; its files are links, so that each is replaced."""
    onnx, description = folder / "model.onnx", json.loads((folder / "manifest.json").read_text())
    content = onnx.read_bytes()
    if damage == "no manifest":
        (folder / "manifest.json").unlink()
    elif damage == "one bit":
        onnx.unlink()
        onnx.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif damage == "no ONNX":
        onnx.unlink()
    elif damage == "not a folder":
        shutil.rmtree(folder)
        folder.write_bytes(b"a tar")
    else:
        description["samples"][0]["prediction"] += 1
        (folder / "manifest.json").unlink()
        (folder / "manifest.json").write_text(json.dumps(description))


@pytest.mark.parametrize("damage", ["no manifest", "one bit", "no ONNX", "not a folder", "other answers"])
def test_a_damaged_model_is_500_and_harms_no_other(server: Endpoint, base: Path, damage: str) -> None:
    assert load(server, base, "other").status == 200
    spoil(base / "models" / "housing" / "model", damage)
    reply = load(server, base, "housing")
    assert error(reply) == (500, "unloadable_model")
    assert len(reply.body) <= 2_048
    assert json.loads(server.get("/models").body)["models"] == json.loads(server.get("/models").body)["models"][:1]
    assert server.ping().status == 200
    assert answers(server, base, "other")
    shutil.rmtree(base / "models" / "housing" / "model", ignore_errors=True)
    shutil.copytree(base / "models" / "numbers" / "model", base / "models" / "housing" / "again")
    assert load(server, base, "housing", url=str(base / "models" / "housing" / "again")).status == 200


def test_a_loaded_model_needs_its_files_no_more(server: Endpoint, base: Path) -> None:
    expected = manifest(base, "housing")
    assert load(server, base, "housing").status == 200
    shutil.rmtree(base / "models" / "housing")
    assert is_right(server.invoke(json_body(expected), JSON, path="/models/housing/invoke"), expected)


# ---- memory


def test_beyond_the_limit_a_load_is_507_and_nothing_is_unloaded_until_it_is_asked_for(base: Path) -> None:
    size = sum((base / "models" / name / "model" / "model.onnx").stat().st_size for name in ("housing", "numbers"))
    limit_mb = (2 * FIXED_BYTES + KEPT_TIMES * size) // MIB + 1
    with serving(Processes(), base, {**MULTI, "BERTH_MODELS_MAX_MB": str(limit_mb)}) as server:
        assert load(server, base, "housing").status == load(server, base, "numbers").status == 200
        for _ in range(3):
            assert error(load(server, base, "classes")) == (507, "no_room")
        assert answers(server, base, "housing")
        assert answers(server, base, "numbers")
        assert server.delete("/models/housing").status == 200
        assert load(server, base, "classes").status == 200
        assert answers(server, base, "classes")
        assert answers(server, base, "numbers")
        used = json.loads(server.get("/metadata").body)["memory"]["used_bytes"]
        for name in ("classes", "numbers"):
            server.delete(path(name))
        assert (used > 0, json.loads(server.get("/metadata").body)["memory"]["used_bytes"]) == (True, 0)


def test_a_model_larger_than_the_limit_is_507_and_says_that_no_unloading_helps(base: Path) -> None:
    with serving(Processes(), base, {**MULTI, "BERTH_MODELS_MAX_MB": "1"}) as server:
        reply = load(server, base, "housing")
        assert error(reply) == (507, "no_room")
        assert "raise BERTH_MODELS_MAX_MB" in json.loads(reply.body)["message"]


def test_what_a_model_counts_covers_what_it_takes(fresh: Endpoint, base: Path) -> None:
    assert load(fresh, base, "first", "other").status == 200  # onnxruntime's own share
    before, counted = resident_bytes(fresh), json.loads(fresh.get("/metadata").body)["memory"]["used_bytes"]
    for index in range(10):
        for name in ("housing", "numbers", "classes"):
            assert load(fresh, base, f"{name}{index}", name).status == 200
    taken = resident_bytes(fresh) - before
    counted = json.loads(fresh.get("/metadata").body)["memory"]["used_bytes"] - counted
    assert 0.6 * counted < taken < 1.05 * counted


def test_a_load_that_memory_has_no_room_for_is_refused_before_it_begins(base: Path) -> None:
    models = Models(Settings.from_environ({**MULTI, "SAGEMAKER_BASE_DIR": str(base)}), memory=8 * MIB)
    with pytest.raises(NoRoom, match="the process has"):
        asyncio.run(models.load("x", str(base / "models" / "housing")))
    assert (len(models), models.used_bytes) == (0, 0)


def test_a_lack_of_memory_while_predicting_or_loading_is_507_and_passes(fresh: Endpoint, base: Path) -> None:
    for name in ("housing", "other"):
        assert load(fresh, base, name).status == 200
    body = csv_body(manifest(base, "housing")) * 60_000
    pid = fresh.program.popen.pid  # type: ignore[attr-defined]
    (worker,) = (int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    limits = resource.prlimit(worker, resource.RLIMIT_AS)
    size = int(Path(f"/proc/{worker}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.prlimit(worker, resource.RLIMIT_AS, (size + 24 * MIB, limits[1]))
    assert error(fresh.invoke(body, CSV, path="/models/housing/invoke")) == (507, "no_room")
    assert fresh.ping().status == 200
    replies = [load(fresh, base, f"c{index}", "classes") for index in range(60)]  # what is freed already serves some
    assert {reply.status for reply in replies} == {200, 507}
    assert fresh.ping().status == 200
    resource.prlimit(worker, resource.RLIMIT_AS, limits)
    assert load(fresh, base, "classes").status == 200
    assert answers(fresh, base, "housing")
    assert fresh.invoke(body, CSV, path="/models/housing/invoke").status == 200


def test_models_cycled_under_an_evicting_platform_leave_memory_flat(schemas: Mapping[str, Path], tmp_path: Path) -> None:
    figures = cycle(list(schemas.values()), tmp_path / "ml", count=40, rounds=4, limit_mb=64)
    print(figures.table())
    assert not figures.wrong
    assert figures.loads == 160, "the limit left room for all"
    assert figures.growth_bytes < 0.2 * 64 * MIB  # twelve rounds moved between 128 and 138 MB, up and down
    assert figures.peak_bytes < figures.empty_bytes[0] + 64 * MIB + 40e6
    assert figures.empty_bytes[1] < figures.empty_bytes[0] + 40e6


# ---- the endpoint around them


def test_what_asks_a_default_model_is_404_and_says_why(server: Endpoint, base: Path) -> None:
    assert load(server, base, "housing").status == 200
    for where in ("/invocations", "/predict", "/v2/models/multi-model/infer", "/score"):
        reply = server.invoke(b"1,2", CSV, path=where)
        assert reply.status == 404
        assert "SAGEMAKER_MULTI_MODEL" in reply.text
    assert server.get("/nothing").status == 404


def test_pages_list_the_models_and_the_openapi_document_is_valid(server: Endpoint, base: Path) -> None:
    from openapi_spec_validator import validate

    assert load(server, base, "<i>x", "classes").status == 200
    home = server.get("/")
    assert "Multi-model endpoint" in home.text
    assert "&lt;i&gt;x<td>Random classes" in home.text
    document = json.loads(server.get("/metadata").body)
    assert document["multi_model"] is True
    assert [(entry["modelName"], entry["title"]) for entry in document["models"]] == [("<i>x", "Random classes")]
    described = json.loads(server.get("/openapi.json").body)
    validate(described)
    assert {"/models", "/models/{name}", "/models/{name}/invoke", "/ping"} <= described["paths"].keys()
    assert "/invocations" not in described["paths"]
    assert "berth_models_loaded 1.0" in server.get("/metrics").text


def test_there_is_one_worker_and_its_end_ends_the_server(base: Path) -> None:
    with serving(Processes(), base, {**MULTI, "SAGEMAKER_MODEL_SERVER_WORKERS": "4"}) as server:
        pid = server.program.popen.pid  # type: ignore[attr-defined]
        (worker,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(int(worker), signal.SIGKILL)
        assert server.program.wait(20) != 0


def test_without_the_setting_there_are_no_models_to_load(endpoint: Endpoint) -> None:
    assert endpoint.get("/models").status == 404
    assert endpoint.invoke(b"{}", JSON, path="/models").status == 404


def test_sigterm_lets_loads_and_requests_finish(base: Path) -> None:
    replies: list[Reply] = []
    with serving(Processes(), base, MULTI) as server:
        assert load(server, base, "housing").status == 200
        body = csv_body(manifest(base, "housing")) * 30_000
        work = [lambda: server.invoke(body, CSV, path="/models/housing/invoke"), lambda: load(server, base, "classes")] * 2
        threads = [threading.Thread(target=lambda each=each: replies.append(each())) for each in work]
        for thread in threads:
            thread.start()
        time.sleep(0.03)
        server.program.signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert server.program.wait(25) == 0
    assert sorted(reply.status for reply in replies) == [200, 200, 200, 409]


def test_a_delete_waits_for_requests_in_flight_and_its_memory_is_free(fresh: Endpoint, base: Path) -> None:
    for name in ("housing", "other"):
        assert load(fresh, base, name).status == 200
    full = resident_bytes(fresh)
    body, replies = csv_body(manifest(base, "housing")) * 60_000, []
    thread = threading.Thread(target=lambda: replies.append(fresh.invoke(body, CSV, path="/models/housing/invoke")))
    thread.start()
    time.sleep(0.15)
    assert not replies, "the request is too short to be in flight"
    assert fresh.delete("/models/housing").status == 200
    freed = resident_bytes(fresh)
    thread.join()
    assert replies[0].status == 200
    assert replies[0].text.count("\n") == 60_000 * 3 - 1
    size = (base / "models" / "housing" / "model" / "model.onnx").stat().st_size
    assert freed < full + 12e6 - 3 * size or freed < full  # arrays of the request may stay in their thread's arena


def test_loads_invokes_and_unloads_at_once_end_in_right_answers_or_named_refusals(base: Path) -> None:
    """Eight clients, four models under six names, room for about three."""
    folders = ["housing", "numbers", "classes", "other"]
    names = {f"m{index}": folders[index % 4] for index in range(6)}
    seen: list[tuple[str, int]] = []
    wrong: list[str] = []

    def play(server: Endpoint, seed: int) -> None:
        chance = random.Random(seed)
        deadline = time.monotonic() + 4
        while time.monotonic() < deadline:
            name, what = chance.choice(list(names)), chance.choice(["load", "ask", "ask", "ask", "unload", "list"])
            if what == "load":
                reply = load(server, base, name, names[name])
            elif what == "unload":
                reply = server.delete(path(name))
            elif what == "list":
                reply = server.get("/models")
            else:
                reply = ask(server, base, name, names[name])
                if reply.status == 200 and not is_right(reply, manifest(base, names[name])):
                    wrong.append(reply.text)
            seen.append((what, reply.status))

    with serving(Processes(), base, {**MULTI, "BERTH_MODELS_MAX_MB": "20"}) as server:
        threads = [threading.Thread(target=play, args=[server, seed]) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.ping().status == 200
        for name in names:
            server.delete(path(name))
        assert json.loads(server.get("/metadata").body)["memory"]["used_bytes"] == 0
        log = server.program.output()
    assert not wrong
    assert set(seen) <= {("load", 200), ("load", 409), ("load", 507), ("ask", 200), ("ask", 404)} | {
        ("unload", 200),
        ("unload", 404),
        ("list", 200),
    }
    assert {("load", 200), ("load", 409), ("load", 507), ("ask", 200), ("unload", 200)} <= set(seen)
    assert "Traceback" not in log
    assert "never retrieved" not in log


def test_the_platform_evicts_for_clients_that_want_more_models_than_fit(base: Path) -> None:
    store = {
        f"{name}-{index}.tar.gz": base / "models" / name / "model" for index in range(3) for name in ("housing", "classes")
    }
    found: list[str] = []
    with serving(Processes(), base, {**MULTI, "BERTH_MODELS_MAX_MB": "20"}) as server:
        front = FrontEnd(server, base, store)
        work = [(target, folder) for target, folder in store.items() for _ in range(5)]

        def play(seed: int) -> None:
            for target, folder in random.Random(seed).sample(work, len(work)):
                found.extend(faults(front, target, folder))

        threads = [threading.Thread(target=play, args=[seed]) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not found
    assert front.evictions > 10


def test_without_a_cache_a_model_goes_after_its_call(base: Path) -> None:
    with serving(Processes(), base, MULTI) as server:
        front = FrontEnd(server, base, {"one": base / "models" / "housing" / "model"}, keeps=False)
        assert [faults(front, "one", front.store["one"]) for _ in range(3)] == [[], [], []]
        assert json.loads(server.get("/models").body) == {"models": []}
        assert front.loads == 3


def test_a_name_in_a_loop_of_links_is_an_error_and_no_hang(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for url in (str(tmp_path / "a"), str(tmp_path / "a\0"), str(tmp_path / ("x" * 5_000))):
        with pytest.raises(BerthError):
            find_model(url, tmp_path)


def test_a_client_that_leaves_while_a_model_loads_or_answers_breaks_nothing(server: Endpoint, base: Path) -> None:
    for _ in range(5):
        line = http.client.HTTPConnection(urlsplit(server.program.url).netloc)
        url = str(base / "models" / "housing" / "model")
        line.request("POST", "/models", json.dumps({"model_name": "left", "url": url}))
        line.close()
        deadline = time.monotonic() + 10
        while server.get("/models/left").status != 200 and time.monotonic() < deadline:
            time.sleep(0.01)
        line = http.client.HTTPConnection(urlsplit(server.program.url).netloc)
        line.request("POST", "/models/left/invoke", csv_body(manifest(base, "housing")) * 5_000, {"Content-Type": CSV})
        line.close()
        assert answers(server, base, "left", "housing")
        assert server.delete("/models/left").status == 200
    assert json.loads(server.get("/metadata").body)["memory"]["used_bytes"] == 0


def test_an_image_serves_several_models_read_only_and_unprivileged(docker: str, image: str, base: Path) -> None:
    (base / "model").mkdir()
    mount = ("--volume", f"{base / 'models'}:/opt/ml/models:ro", "--read-only", "--tmpfs", "/tmp", "--memory", "512m")
    with serving(Containers(image, docker, mount), base, MULTI) as server:
        assert json.loads(server.get("/metadata").body)["memory"]["limit_bytes"] == (512 - 128) * 3 // 4 * MIB
        for name in ("housing", "classes"):
            assert load(server, base, name, url=f"/opt/ml/models/{name}/model").status == 200
            assert answers(server, base, name)
            assert server.delete(path(name)).status == 200
