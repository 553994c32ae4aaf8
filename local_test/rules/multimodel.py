"""How a container does behind a multi-model endpoint: H-23, H-24.

A lack of memory (507) can't be brought about in any container alike, so it is not judged; nor is how much memory an unloaded
model gives back.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from urllib.parse import quote

from local_test.emulator import Endpoint, Reply
from local_test.emulator.frontend import CONNECTIONS, Host, ask_at_once
from local_test.runners import Processes
from local_test.subject import Subject
from local_test.verdicts import Blocked, Rule, Severity, Unjudged, Violated

ROUNDS = 6
"""How often connections are opened together: four told 90 of 90 pairs of workers apart, blocking, threaded or event loops."""
MOST_PAGES = 50


def starts_without_a_model(subject: Subject) -> str:
    """Judge whether the container becomes ready with no model, as it is started behind a multi-model endpoint."""
    subject.claims("multi-models")
    host = _host(subject)
    return f"with SAGEMAKER_MULTI_MODEL=true and no model /ping answered 200 after {host.endpoint.seconds_to_ready:.2f} s"


def a_model_can_be_loaded(subject: Subject) -> str:
    """Judge whether a model that the platform brought is loaded under the platform's name."""
    with _loaded(_host(subject), "first") as name:
        return f"POST /models of {name} answered 200"


def a_model_is_loaded_once(subject: Subject) -> str:
    """Judge whether a name that is taken is refused with 409, and its model stays."""
    host = _host(subject)
    with _loaded(host, "once") as name:
        before = host.endpoint.get(f"/models/{name}").status
        _expect(host.load(*host.bring("once")), 409, "POST /models of a name that is loaded")
        _expect(host.endpoint.get(f"/models/{name}"), before, "GET /models/{name} after a second POST /models")
    return "POST /models of a name that is loaded answered 409, and the model stayed"


def loaded_models_are_listed(subject: Subject) -> str:
    """Judge whether GET /models lists what is loaded, over as many pages as it gives."""
    host = _host(subject)
    with _loaded(host, "listed") as one, _loaded(host, "listed too") as other:
        listed, pages = _listed(host.endpoint)
        for target, name in (("listed", one), ("listed too", other)):
            url = host.bring(target)[1]
            if listed.get(name) != url:
                raise Violated(f"GET /models gives {listed.get(name)!r} as modelUrl of {name}, which was loaded from {url}")
    return f"GET /models lists modelName and modelUrl of what is loaded, on {pages} pages"


def a_model_is_described(subject: Subject) -> str:
    """Judge whether GET /models/{name} says what is loaded, and 404 what is not."""
    host = _host(subject)
    with _loaded(host, "described") as name:
        reply = host.endpoint.get(f"/models/{name}")
        _expect(reply, 200, "GET /models/{name}")
        found, wanted = _object(reply, "GET /models/{name}"), {"modelName": name, "modelUrl": host.bring("described")[1]}
        if {key: found.get(key) for key in wanted} != wanted:
            raise Violated(f"GET /models/{{name}} answered {reply.text[:200]}; {json.dumps(wanted)} was expected")
    _expect(host.endpoint.get(f"/models/{'0' * 32}"), 404, "GET /models/{name} of a name that is not loaded")
    return "GET /models/{name} gives modelName and modelUrl, and 404 for a name that is not loaded"


def a_model_answers(subject: Subject) -> str:
    """Judge whether a loaded model is asked by its name, and answers as it does alone."""
    host, ask = _host(subject), _question(subject)
    with _loaded(host, "asked") as name:
        reply = ask(host.endpoint, f"/models/{name}/invoke")
        alone = ask(subject.endpoint, "/invocations")
        if alone.status != 200:
            raise Blocked("H-11")
        _expect(reply, 200, "POST /models/{name}/invoke")
    return "POST /models/{name}/invoke answered 200" + (", and what /invocations does" if reply.body == alone.body else "")


def a_model_that_is_not_loaded_is_404(subject: Subject) -> str:
    """Judge whether asking a model that is not loaded is 404, at which the platform loads it."""
    path = f"/models/{'0' * 32}/invoke"
    _expect(_question(subject)(_host(subject).endpoint, path), 404, "POST /models/{name}/invoke of a name that is not loaded")
    return "POST /models/{name}/invoke of a name that is not loaded answered 404"


def a_model_can_be_unloaded(subject: Subject) -> str:
    """Judge whether DELETE takes a model away, once, and its name is free again."""
    host = _host(subject)
    name, url = host.bring("unloaded")
    _expect(host.load(name, url), 200, "POST /models")
    _expect(host.endpoint.delete(f"/models/{name}"), 200, "DELETE /models/{name}")
    _expect(host.endpoint.delete(f"/models/{name}"), 404, "DELETE /models/{name} of a name that is not loaded")
    _expect(host.load(name, url), 200, "POST /models of a model that was unloaded")
    host.endpoint.delete(f"/models/{name}")
    return "DELETE /models/{name} answered 200, a second one 404, and the model can be loaded again"


def a_bad_load_harms_nothing(subject: Subject) -> str:
    """Judge whether what can't be loaded is refused, is not listed, and leaves the server as it was."""
    host, name = _host(subject), "f" * 32
    bodies = {
        "a url that does not exist": json.dumps({"model_name": name, "url": f"{host.seen_base}/models/{name}/model"}),
        "a body without a url": json.dumps({"model_name": name}),
        "a body that is no JSON": "{",
    }
    seen = []
    for what, body in bodies.items():
        reply = host.post(body.encode())
        if reply.status < 400 or reply.status in {409, 507}:
            raise Violated(f"POST /models with {what} answered {reply.status}; an error other than 409 and 507 was expected")
        seen.append(f"{what} {reply.status}")
    unknown = host.endpoint.get(f"/models/{'0' * 32}").status
    _expect(host.endpoint.get(f"/models/{name}"), unknown, "GET /models/{name} of a model that could not be loaded")
    _expect(host.endpoint.ping(), 200, "/ping after a model could not be loaded")
    return f"POST /models with {', '.join(seen)}; the server goes on"


def every_worker_knows_the_models(subject: Subject) -> str:
    """Judge whether it is all the same which process takes a connection."""
    host = _host(subject)
    answers: Counter[tuple[str, int, bool]] = Counter()
    with _loaded(host, "known to all") as name:
        for turn in range(ROUNDS):
            path = "/models" if turn % 2 else f"/models/{name}"
            answers.update((path, status, name in text) for status, text in ask_at_once(host.endpoint, path))
    if len(answers) > 2:
        told = [
            f"{count} x {path} {status} {'with' if knows else 'without'} it" for (path, status, knows), count in answers.items()
        ]
        raise Violated(f"connections did not find the same model: {', '.join(sorted(told)).replace(name, '{name}')}")
    return f"{ROUNDS * CONNECTIONS} connections, {CONNECTIONS} at once, found the same"


def _host(subject: Subject) -> Host:
    return subject.once("multi-model host", partial(_make_host, subject))


def _make_host(subject: Subject) -> Host:
    model, base = subject.model, subject.folder / "multimodel"
    if not any(model.iterdir()):
        raise Unjudged("there is no model to load: --model model.tar.gz, or --train-data DIR")
    (base / "models").mkdir(parents=True)
    is_tree = isinstance(subject.platform, Processes)
    mount = f"{base}:/opt/ml" if is_tree else f"{base}/models:/opt/ml/models:ro"  # H-4: read-only behind these endpoints
    endpoint = subject.kept("multi-model", {"SAGEMAKER_MULTI_MODEL": "true"}, with_model=False, mounts=(mount,))
    return Host(endpoint, base, str(base) if is_tree else "/opt/ml", model)


@contextlib.contextmanager
def _loaded(host: Host, target: str) -> Iterator[str]:
    """Give the name of a model that is loaded meanwhile; raises Violated where it can't be."""
    name, url = host.bring(target)
    _expect(host.load(name, url), 200, "POST /models")
    try:
        yield name
    finally:
        host.endpoint.delete(f"/models/{name}")


def _question(subject: Subject) -> Callable[[Endpoint, str], Reply]:
    """Return what asks the owner's payload of a path; raises Unjudged where there is none."""
    if subject.payload is None:
        raise Unjudged("no payload was given: --payload FILE --content-type T")
    payload, target = subject.payload, {"X-Amzn-SageMaker-Target-Model": "asked.tar.gz"}
    return lambda endpoint, path: endpoint.invoke(payload.body, payload.content_type, path=path, more=target)


def _listed(endpoint: Endpoint) -> tuple[dict[str, str], int]:
    """Return the names and urls on all pages of GET /models, and how many pages there are; raises Violated."""
    found: dict[str, str] = {}
    path = "/models"
    for page in range(1, MOST_PAGES + 1):
        reply = endpoint.get(path)
        _expect(reply, 200, f"GET {path}")
        document = _object(reply, f"GET {path}")
        models = document.get("models")
        if not isinstance(models, list) or not all(
            isinstance(each, dict) and {"modelName", "modelUrl"} <= {*each} for each in models
        ):
            expected = '{"models": [{"modelName": "..", "modelUrl": ".."}], "nextPageToken": ".."}'
            raise Violated(f"GET {path} answered {reply.text[:200]}; {expected} was expected")
        found |= {each["modelName"]: each["modelUrl"] for each in models}
        if not document.get("nextPageToken"):
            return found, page
        path = f"/models?next_page_token={quote(str(document['nextPageToken']))}"
    raise Violated(f"GET /models still gives a nextPageToken after {MOST_PAGES} pages, {len(found)} models in all")


def _object(reply: Reply, what: str) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        found = json.loads(reply.body)
        if isinstance(found, dict):
            return found
    raise Violated(f"{what} answered what is no JSON object: {reply.text[:200]!r}")


def _expect(reply: Reply, status: int, what: str) -> None:
    if reply.status != status:
        raise Violated(f"{what} answered {reply.status}, not {status}: {reply.text[:200]}")


def _rule(title: str, fix: str, check: Callable[[Subject], str], *needs: str) -> Rule:
    return Rule("H-24", title, Severity.SAGEMAKER, fix, check, needs or ("every_worker_knows_the_models",))


RULES = (
    Rule(
        "H-23",
        "a container with the label of multi-model endpoints starts without a model",
        Severity.SAGEMAKER,
        "With SAGEMAKER_MULTI_MODEL=true answer /ping with 200 before any model is loaded, or drop the label multi-models.",
        starts_without_a_model,
        ("becomes_ready",),
    ),
    _rule(
        "POST /models loads a model",
        "Read model_name and url from the body, load the folder, answer 200.",
        a_model_can_be_loaded,
        "starts_without_a_model",
    ),
    _rule(
        "every worker knows the models",
        "Keep the registry in one process, or where all workers see it.",
        every_worker_knows_the_models,
        "a_model_can_be_loaded",
    ),
    _rule("POST /models of a loaded name is 409", "Answer 409 and leave the model as it is.", a_model_is_loaded_once),
    _rule("GET /models lists what is loaded", "Answer {models: [{modelName, modelUrl}]}.", loaded_models_are_listed),
    _rule("GET /models/{name} describes a model", "Answer {modelName, modelUrl}, or 404.", a_model_is_described),
    _rule("POST /models/{name}/invoke answers", "Answer as /invocations does, with the named model.", a_model_answers),
    _rule(
        "asking a model that is not loaded is 404",
        "Answer 404: at that the platform loads the model and asks again.",
        a_model_that_is_not_loaded_is_404,
        "starts_without_a_model",
    ),
    _rule("DELETE /models/{name} unloads a model", "Free it and answer 200; 404 if it is not loaded.", a_model_can_be_unloaded),
    _rule(
        "a model that can't be loaded is refused",
        "Answer an error, neither 409 nor 507, and keep serving the others.",
        a_bad_load_harms_nothing,
        "starts_without_a_model",
    ),
)
