"""Every deliberate error: one tree, each class with the HTTP status and the exit code it ends in.

    BerthError                                        HTTP  exit
    ├── UserError              what was given           400     1
    │   ├── BadSetting         an environment variable  500     1
    │   ├── BadDeclaration     model/ contradicts itself 500    1
    │   ├── BadHyperparameters                          400     1
    │   ├── BadConfig          a file of input/config   400     1
    │   ├── BadChannel         data that isn't there    400     1
    │   ├── BadData            a value, a row           400     1
    │   ├── SchemaMismatch     the wrong columns        400     1
    │   ├── UnreadableBody     not CSV, not JSON, ..    400     1
    │   ├── BadParameter       asked, but neither yes nor no 400 1
    │   ├── NoIntervals        the model has none       400     1
    │   ├── MissingLibrary     one that a verb needs    500     1
    │   ├── BadArtifact        no model for a device    400     1
    │   ├── NoDelegate         no Edge TPU, say         500     1
    │   ├── UnknownPath                                 404     1
    │   ├── MethodNotAllowed                            405     1
    │   ├── NotAcceptable      no such answer format    406     1
    │   ├── SlowBody           not whole in time        408     1
    │   ├── ModelLoaded        multi-model: twice       409     1
    │   ├── PayloadTooLarge                             413     1
    │   └── UnsupportedMediaType                        415     1
    ├── AlgorithmError         the model's or ours      500     2
    │   ├── ExportFailed       ONNX can't say the same  500     2
    │   ├── DamagedModel       files against manifest   503     2
    │   │   └── UnloadableModel multi-model: the same   500     2
    │   └── NoRoom             multi-model: memory      507     2
    ├── Overloaded             no inference slot free   503     2
    └── Stopped                before there was a model 503   143

A message says what was found, what was expected and what to do, and is safe to show to the caller.
Anything that is no BerthError is a bug: 500 or the failure file, its traceback to the log only.
"""

from __future__ import annotations

from typing import Any, ClassVar


class BerthError(Exception):
    """A failure whose message is meant for the caller.

    Facts (row, column, missing, ...) are keyword arguments; they go beside the message into the JSON of an error.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts


class UserError(BerthError):
    """What the caller gave can't be used; doing it again changes nothing."""

    code = "user_error"
    status = 400
    exit_code = 1


class BadSetting(UserError):
    """An environment variable has a value outside what it takes."""

    code = "bad_setting"
    status = 500


class BadDeclaration(UserError):
    """The declaration in model/ contradicts itself; the message has one line a fault."""

    code = "bad_declaration"
    status = 500


class BadHyperparameters(UserError):
    """Hyperparameters are unknown or out of range; the message has one line a fault."""

    code = "bad_hyperparameters"


class BadConfig(UserError):
    """A file of /opt/ml/input/config isn't what the platform writes."""

    code = "bad_config"


class BadChannel(UserError):
    """A channel is missing, empty or of a mode that isn't read."""

    code = "bad_channel"


class BadData(UserError):
    """A value can't be used; facts: row (from 1, the header not counted) and column."""

    code = "bad_data"


class SchemaMismatch(UserError):
    """Columns are missing, unknown, doubled or too many; facts: both lists, or the two widths."""

    code = "schema_mismatch"


class UnreadableBody(UserError):
    """The body isn't of the format its media type names."""

    code = "unreadable_body"


class BadParameter(UserError):
    """A parameter of the request has a value that it doesn't take; fact: parameter."""

    code = "bad_parameter"


class NoIntervals(UserError):
    """Prediction intervals were asked of a model that has none."""

    code = "no_intervals"


class MissingLibrary(UserError):
    """A library that was asked for isn't installed; fact: library."""

    code = "missing_library"
    status = 500


class BadArtifact(UserError):
    """A file isn't the model for a device that it was taken for; fact: file."""

    code = "bad_artifact"


class NoDelegate(UserError):
    """What would run a model on an accelerator can't be loaded, or none is there; fact: library."""

    code = "no_delegate"
    status = 500


class UnknownPath(UserError):
    """Nothing answers at this path."""

    code = "not_found"
    status = 404


class MethodNotAllowed(UserError):
    """The path answers other methods; fact: allow."""

    code = "method_not_allowed"
    status = 405


class NotAcceptable(UserError):
    """None of the formats that Accept names can be written."""

    code = "not_acceptable"
    status = 406


class SlowBody(UserError):
    """The body did not arrive whole in time."""

    code = "slow_body"
    status = 408


class ModelLoaded(UserError):
    """A model of this name is loaded already (H-24)."""

    code = "model_loaded"
    status = 409


class PayloadTooLarge(UserError):
    """The body is larger than the limit, or holds more rows; fact: limit_bytes or limit_rows."""

    code = "payload_too_large"
    status = 413


class UnsupportedMediaType(UserError):
    """The body's media type isn't read here."""

    code = "unsupported_media_type"
    status = 415


class AlgorithmError(BerthError):
    """Training or serving went wrong by no fault of the caller's."""

    code = "algorithm_error"


class ExportFailed(AlgorithmError):
    """The ONNX model, or a file for devices, can't be made, or doesn't say what the model it is made of says."""

    code = "export_failed"


class DamagedModel(AlgorithmError):
    """The model directory isn't what its manifest describes; fact: file."""

    code = "damaged_model"
    status = 503


class UnloadableModel(DamagedModel):
    """A model that was to be loaded beside others is damaged: asking again, or unloading others, changes nothing (H-24)."""

    code = "unloadable_model"
    status = 500


class NoRoom(AlgorithmError):
    """There is no memory for another model (H-24); the platform unloads one and asks again."""

    code = "no_room"
    status = 507


class Overloaded(BerthError):
    """No inference slot came free in time; fact: retry_after_s."""

    code = "overloaded"
    status = 503


class Stopped(BerthError):
    """SIGTERM came before there was a model to keep. 143 is 128 + SIGTERM, as a shell reports it."""

    code = "stopped"
    status = 503
    exit_code = 143
