"""What the validation's server and transform job have to be: seen by `validate`, judged here. SERVED has a function a rule."""

from __future__ import annotations

import json

from deploy.market.trained import Broken, Facts, NotSeen, Rule, judge_log, judge_places, last_line, network_sign, profile_of

PING_S = 2
"""H-8."""
ANSWER_S, ANSWER_BYTES = 60, 25_000_000
"""M-11: of an endpoint."""
BATCH_MB = 100
"""M-11, H-26: of all requests at once."""
STOP_S = 30
"""H-6."""
LATE = "no answer within 2 s"


def starts(facts: Facts, _request: Facts) -> str:
    """Judge whether the word serve starts anything."""
    server = facts["serving"]
    if not server["started"]:
        raise Broken(server["why"])
    return "it was started"


def needs_no_network(facts: Facts, _request: Facts) -> str:
    """Judge whether serve asked for the network and did not start without."""
    server = _started(facts)
    line = network_sign(server["output"])
    if server["ready_s"] is None and line:
        raise Broken(f"on a network that leads nowhere it does not become ready: {line}")
    return "it was run on a network that leads nowhere"


def becomes_ready(facts: Facts, _request: Facts) -> str:
    """Judge whether /ping answered 200."""
    server = _started(facts)
    if server["ready_s"] is None:
        if network_sign(server["output"]):
            raise NotSeen("blocked by M-7: it wants the network")
        if server["why"] == LATE:
            raise NotSeen("blocked by H-8: /ping is late")
        raise Broken(f"{server['why']}; it printed last: {last_line(server['output'])}")
    return f"/ping answered 200 after {server['ready_s']} s"


def pings_in_time(facts: Facts, _request: Facts) -> str:
    """Judge how long /ping took."""
    server = _started(facts)
    if server["why"] == LATE:
        raise Broken("/ping gave no answer within 2 s, several times in a row")
    _ready(facts)
    if server["slowest_ping_s"] >= PING_S:
        raise Broken(f"the slowest of {server['pings']} pings took {server['slowest_ping_s']} s")
    return f"the slowest of {server['pings']} pings took {server['slowest_ping_s']} s"


def logs_no_pings(facts: Facts, _request: Facts) -> str:
    """Judge whether each /ping prints something."""
    server = _ready(facts)
    if server["ping_lines"] >= server["pings"]:
        raise Broken(f"{server['pings']} pings printed {server['ping_lines']} lines")
    return f"{server['pings']} pings printed {server['ping_lines']} lines"


def offers_what_it_may(facts: Facts, _request: Facts) -> str:
    """Judge what /execution-parameters offers (H-26)."""
    reply = _ready(facts)["parameters"]
    if reply["status"] != 200:
        return f"/execution-parameters answered {reply['status']}: the platform's defaults hold"
    try:
        told = json.loads(reply["text"])
        product = told.get("MaxConcurrentTransforms", 1) * told.get("MaxPayloadInMB", 6)
    except (ValueError, AttributeError, TypeError):
        raise Broken(f"/execution-parameters answered what can't be read: {reply['text'][:80]}") from None
    if product > BATCH_MB:
        raise Broken(f"/execution-parameters offers {product} MB at once; {BATCH_MB} MB are allowed: {reply['text'][:120]}")
    return f"/execution-parameters offers {product} MB at once"


def transforms(facts: Facts, _request: Facts) -> str:
    """Judge whether the transform job completed."""
    job = _ready(facts)["transform"]
    if job["failures"]:
        if any("MaxConcurrentTransforms" in why or "MaxPayloadInMB" in why for why in job["failures"].values()):
            raise NotSeen("blocked by M-11: what the container offers is refused")
        raise Broken("; ".join(f"{name}: {why}" for name, why in job["failures"].items())[:1_000])
    return f"{len(job['objects'])} objects were answered in {job['seconds']} s"


def answers_each_record(facts: Facts, request: Facts) -> str:
    """Judge whether each record got one answer (H-29)."""
    job = _ready(facts)["transform"]
    if job["failures"]:
        raise NotSeen("blocked by M-5: the transform job failed")
    if profile_of(request)["TransformJobDefinition"]["TransformInput"].get("SplitType") != "Line":
        return "the records are no lines: their answers are not counted"
    faults = [f"{name}: {sent} records, {got} answers" for name, (sent, got) in job["objects"].items() if sent != got]
    if faults:
        raise Broken("; ".join(faults))
    return f"{sum(sent for sent, _ in job['objects'].values())} records, as many answers"


def answers_as_declared(facts: Facts, request: Facts) -> str:
    """Judge whether each declared type is answered when it is asked for (M-4)."""
    answers = _ready(facts)["answers"]
    faults = []
    for accept, reply in answers.items():
        found = reply["content_type"].partition(";")[0].strip().lower()
        if reply["status"] != 200:
            faults.append(f"Accept: {accept} is answered {reply['status'] or 'not at all'}: {reply['text'][:120]}")
        elif found != accept.lower():
            faults.append(f"Accept: {accept} is answered as {found or 'nothing named'}")
    if faults:
        raise Broken("; ".join(faults))
    return f"all of {', '.join(answers)} are answered as such"


def answers_within_limits(facts: Facts, _request: Facts) -> str:
    """Judge whether a buyer's largest request is answered, or refused with 413, in time and size (M-11)."""
    server = _ready(facts)
    largest, slowest = server["largest"], max((reply["seconds"] for reply in server["answers"].values()), default=0)
    if slowest > ANSWER_S:
        raise Broken(f"the sample took {slowest} s; {ANSWER_S} s are allowed")
    if largest["seconds"] > ANSWER_S or largest["status"] not in {200, 413}:
        told = f"answered {largest['status'] or 'not at all'} after {largest['seconds']} s: {largest['text'][:200]}"
        raise Broken(f"a request of 25 MB was {told}; 200 or 413 within {ANSWER_S} s was expected")
    if largest["bytes"] > ANSWER_BYTES:
        raise Broken(f"a request of 25 MB was answered with {largest['bytes'] / 1e6:.0f} MB")
    return f"the sample took {slowest} s; 25 MB were answered {largest['status']} after {largest['seconds']} s"


def blames_bad_rows(facts: Facts, _request: Facts) -> str:
    """Judge whether what is no row is answered with 4xx (H-15)."""
    reply = _ready(facts)["bad"]
    if reply["status"] is None or not 400 <= reply["status"] < 500:
        raise Broken(f"a row with a word for a number was answered {reply['status'] or 'not at all'}")
    return f"a row with a word for a number was answered {reply['status']}"


def stops_in_time(facts: Facts, _request: Facts) -> str:
    """Judge how long SIGTERM took (H-6, M-14)."""
    server = _ready(facts)
    if server["stop_s"] >= STOP_S:
        raise Broken(f"it ended {server['stop_s']} s after SIGTERM, and was killed")
    return f"it ended {server['stop_s']} s after SIGTERM"


def writes_where_it_may(facts: Facts, _request: Facts) -> str:
    """Judge whether serve wrote outside /tmp."""
    return judge_places(_started(facts)["changed"])


def logs_no_payloads(facts: Facts, _request: Facts) -> str:
    """Judge whether a value of a request came into the log."""
    return judge_log(facts["mark"], _started(facts)["output"])


def _started(facts: Facts) -> Facts:
    server: Facts = facts["serving"]
    if not server["started"]:
        raise NotSeen("blocked by H-1: serve was not started")
    return server


def _ready(facts: Facts) -> Facts:
    server = _started(facts)
    if server["ready_s"] is None:
        raise NotSeen("blocked by what keeps it from becoming ready")
    return server


SERVED = (
    Rule("H-1", "serve is a program on PATH", "Put an executable file of that name on PATH.", starts),
    Rule(
        "M-7", "serve needs no network", "Fetch nothing: put packages into the image, weights into the model.", needs_no_network
    ),
    Rule("H-7", "serve becomes ready", "Run `python -m local_test doctor IMAGE`: it names the cause.", becomes_ready),
    Rule("H-8", "/ping answers within 2 s", "Answer from a cached result, in a thread of its own.", pings_in_time),
    Rule("H-37", "/ping is not logged", "Take /ping out of the access log.", logs_no_pings),
    Rule("M-11", "batch jobs offer at most 100 MB at once", "Lower one of both factors.", offers_what_it_may),
    Rule("M-5", "the validation's transform job ends well", "Send the same records to `serve` here until it does.", transforms),
    Rule("H-29", "a record has one answer", "Answer one line a record, in order, and none for a header.", answers_each_record),
    Rule("M-4", "answers are of the declared types", "Heed Accept; declare what is answered.", answers_as_declared),
    Rule("M-11", "a buyer's largest request is answered", "Answer in time, or refuse with 413.", answers_within_limits),
    Rule("H-15", "a bad row is answered with 4xx", "Answer 400 and say what is wrong with it.", blames_bad_rows),
    Rule("H-6", "serve ends within 30 s", "Heed SIGTERM: finish what is under way and leave.", stops_in_time),
    Rule("M-14", "serve writes below /tmp alone", "Write below /tmp: caches, sockets, process numbers.", writes_where_it_may),
    Rule("H-37", "serve logs no data", "Log a request's number, size and status, never its body.", logs_no_payloads),
)
