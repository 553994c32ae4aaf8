"""Servers with one fault each: a sound one, one step of it changed, and the rules that must find it (`finds`), no others."""

from __future__ import annotations

import io
import itertools
import pickle
import sys
import threading
import time

import numpy as np
from sound import CSV, JSON, MIB, Refused, Sound


class NeedsAccept(Sound):
    finds = ("any_accept_will_do",)

    def wanted(self, kind):
        if self.headers.get("Accept", "*/*") in {"*/*", ""}:
            raise Refused(406, "say what you want")
        return super().wanted(kind)


class ComparesAccept(Sound):
    finds = ("accept_lists_are_read",)

    def wanted(self, kind):
        accept = self.headers.get("Accept", "")
        if accept not in {"", "*/*", CSV, JSON}:
            raise Refused(406, "not written")
        return super().wanted(kind)


class FailsOnAccept(Sound):
    finds = ("unknown_accept_is_refused",)

    def wanted(self, kind):
        try:
            return super().wanted(kind)
        except Refused as error:
            raise Refused(500, "KeyError") from error


class OwnDefault(Sound):
    finds = ("default_accept_is_read",)

    def wanted(self, kind):
        return super().wanted(kind) if self.headers.get("Accept", "*/*") not in {"", "*/*"} else kind


class ComparesTypes(Sound):
    finds = ("media_type_is_compared_alone",)

    def kind(self):
        if self.headers.get("Content-Type", CSV) not in {CSV, JSON}:
            raise Refused(415, "not read")
        return super().kind()


class SaysNoType(Sound):
    finds = ("answer_has_its_type",)

    def reply(self, status, body, kind):
        super().reply(status, body, "" if status == 200 else kind)


class SaysHtml(Sound):
    finds = ("answer_has_its_type",)

    def reply(self, status, body, kind):
        super().reply(status, body, "text/html; charset=utf-8" if status == 200 else kind)


class SaysJson(Sound):
    finds = ("answer_has_its_type",)

    def reply(self, status, body, kind):
        super().reply(status, b"[1,\n2" if status == 200 and self.command == "POST" else body, JSON)


class Remembers(Sound):
    finds = ("same_payload_has_same_answer",)
    turns = itertools.cycle([False, False, True])

    def encode(self, values, kind):
        return super().encode(
            values * 2 if len(values) == 2 and "Accept" not in self.headers and next(self.turns) else values, kind
        )


class FailsOnGarbage(Sound):
    finds = ("garbage_is_refused", "header_row_does_no_harm")

    def unreadable(self, error):
        return error


class FailsOnNothing(Sound):
    finds = ("empty_body_is_refused",)

    def none(self):
        raise IndexError


class IgnoresTypes(Sound):
    finds = ("unheard_type_is_refused",)

    def kind(self):
        return CSV


class NeedsType(Sound):
    finds = ("unnamed_type_does_no_harm",)

    def kind(self):
        if "Content-Type" not in self.headers:
            raise Refused(500, "KeyError: 'Content-Type'")
        return super().kind()


class LongErrors(Sound):
    finds = ("errors_are_short",)

    def refuse(self, status, message):
        super().refuse(status, message * 500)


class HtmlErrors(Sound):
    finds = ("errors_are_no_pages",)

    def refuse(self, status, message):
        self.reply(status, b"<!doctype html><title>400 Bad Request</title>", "text/html")


class Traces(Sound):
    finds = ("errors_have_no_trace",)

    def unreadable(self, error):
        return Refused(400, 'Traceback (most recent call last):\n  File "serve.py", line 7, in predict')


class CutsOnGarbage(Sound):
    finds = ("odd_requests_are_survived",)

    def unreadable(self, error):
        return Refused(0, "")

    def refuse(self, status, message):
        self.close_connection = not status
        if status:
            super().refuse(status, message)


class FailsOnGet(Sound):
    finds = ("other_methods_do_no_harm",)

    def get(self):
        if self.path == self.predict:
            self.refuse(500, "AttributeError")
        else:
            super().get()


class LoadsArrays(Sound):
    finds = ("pickles_are_not_loaded",)
    loaded = "application/x-npy"

    def kind(self):
        return self.loaded if self.headers.get("Content-Type") == self.loaded else super().kind()

    def rows(self, body, kind):
        if kind != self.loaded:
            return super().rows(body, kind)
        try:
            return self.load(io.BytesIO(body)).tolist()
        except Exception as error:
            raise Refused(400, "not read") from error

    def load(self, stream):
        return np.load(stream, allow_pickle=True)


class LoadsPickles(LoadsArrays):
    loaded = "application/x-pickle"

    def load(self, stream):
        return pickle.load(stream)


class DropsLast(Sound):
    finds = ("a_line_a_row",)

    def encode(self, values, kind):
        return super().encode(values[:-1] if len(values) > 2 else values, kind)


class OneLine(Sound):
    finds = ("a_line_a_row",)

    def encode(self, values, kind):
        return ",".join(map(str, values)).encode() if kind == CSV else super().encode(values, kind)


class BlankLines(Sound):
    finds = ("a_line_a_row",)

    def encode(self, values, kind):
        return super().encode(values, kind).replace(b"\n", b"\n\n") if kind == CSV else super().encode(values, kind)


class NeedsUnixLines(Sound):
    finds = ("line_ends_make_no_difference",)

    def cells(self, text):
        if "\r" in text:
            raise ValueError("\\r")
        return super().cells(text)


class NeedsLastNewline(Sound):
    finds = ("line_ends_make_no_difference",)

    def cells(self, text):
        return super().cells(text[: text.rindex("\n") + 1])


class PredictsHeader(Sound):
    finds = ("header_row_does_no_harm",)

    def number(self, cell):
        return 0.0 if str(cell).startswith("column") else super().number(cell)


class DropsMissing(Sound):
    finds = ("missing_cells_do_no_harm",)

    def encode(self, values, kind):
        return super().encode([value for value in values if value == value], kind)


class FailsOnMissing(Sound):
    finds = ("missing_cells_do_no_harm",)

    def number(self, cell):
        if cell == "":
            raise Refused(500, "ValueError")
        return super().number(cell)


class TakesAnyWidth(Sound):
    finds = ("wrong_width_is_refused", "garbage_is_refused", "header_row_does_no_harm")

    def row(self, row):
        return [self.number(cell) if str(cell)[:1].isdigit() else 0.0 for cell in row]


class FailsOnWidth(Sound):
    finds = ("wrong_width_is_refused",)

    def row(self, row):
        if len(row) != 3 and str(row[0])[:1].isdigit():
            raise Refused(500, "cannot reshape")
        return super().row(row)


class RefusesHeaders(Sound):
    finds = ("added_headers_make_no_difference",)

    def kind(self):
        if "X-Amzn-SageMaker-Unheard-Of" in self.headers:
            raise Refused(400, "unknown header")
        return super().kind()


class ParsesAttributes(Sound):
    finds = ("custom_attributes_are_taken",)

    def kind(self):
        for part in self.headers.get("X-Amzn-SageMaker-Custom-Attributes", "a=1").split(";"):
            if "=" not in part:
                raise Refused(400, "name=value was expected")
        return super().kind()


class OneAtATime(Sound):
    finds = ("requests_at_once_are_answered",)
    lock = threading.Lock()

    def encode(self, values, kind):
        if not self.lock.acquire(blocking=False):
            raise Refused(500, "busy")
        time.sleep(0.05)
        self.lock.release()
        return super().encode(values, kind)


class LeavesBody(Sound):
    finds = ("connections_outlive_errors",)

    def body(self):
        return b"" if "unheard-of" in self.headers.get("Content-Type", "") else super().body()


class LikeNginx(Sound):
    finds = ("common_bodies_are_taken",)
    limit = MIB

    def refuse(self, status, message):
        super().refuse(status, "nginx/1.22.1" if status == 413 else message)


class CutsLarge(Sound):
    finds = ("common_bodies_are_taken",)
    longest = MIB

    def body(self):
        if int(self.headers.get("Content-Length", 0)) > self.longest:
            raise ConnectionAbortedError
        return super().body()


class CutsLargest(CutsLarge):
    finds = ("largest_bodies_are_answered",)
    longest = 24 * MIB


class FallsIll(Sound):
    finds = ("largest_bodies_are_answered",)
    ill = threading.Event()

    def rows(self, body, kind):
        (self.ill.set if len(body) > 25 * MIB else self.ill.clear)()
        return super().rows(body, kind)

    def get(self):
        if self.ill.is_set() and self.path == self.health:
            self.reply(503, b"", "")
        else:
            super().get()


class NeedsLength(Sound):
    finds = ("bodies_without_a_length_are_read",)

    def chunks(self):
        super().chunks()
        return b""


FAULTS = [
    member
    for member in vars(sys.modules[__name__]).values()
    if isinstance(member, type) and issubclass(member, Sound) and member is not Sound
]
