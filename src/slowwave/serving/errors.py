"""Errors as OpenAI's clients expect them."""

from __future__ import annotations

import errno
import logging
import math
from collections.abc import Mapping
from typing import Any

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from slowwave.memory.endpoint import EndpointError
from slowwave.memory.names import Damaged, HeldElsewhere, OtherModel, TakenName, UnknownName
from slowwave.serving.engine import Ended

LOG = logging.getLogger("slowwave.serving")

LONGEST_MESSAGE = 500
"""Characters of a message, which may quote a part of the request."""
MOST_SHOWN = 40
"""Characters of a value in a message."""

CLIENT_GONE = 499
"""Status of a request whose client hung up before the answer."""
FAULTS = (500, 507)
"""Statuses of errors that are the server's fault."""

KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}

REFUSALS = {
    UnknownName: (404, "memory_not_found"),
    TakenName: (409, "name_taken"),
    HeldElsewhere: (409, "memory_in_use"),
    OtherModel: (409, "other_model"),
    Damaged: (500, "memory_damaged"),
}
UPSTREAM_FAULTS: Mapping[str, int] = {"slow": 504, "key": 500}
"""The status where an endpoint elsewhere has none; 502 for other faults."""
# Replaces pydantic's messages of these types.
ADVICE = {
    "dict_type": "use an object",
    "model_type": "use an object",
    "list_type": "use a list",
    "string_type": "use a text",
    "bool_type": "use true or false",
    "bool_parsing": "use true or false",
    "string_unicode": "it has half of a surrogate pair, which is no text; mend it",
}


class ApiError(HTTPException):
    """Refuses a request with a status and one sentence.

    param: the field that is wrong. code: a word for programs.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        headers = None if retry_after is None else {"Retry-After": str(retry_after)}
        super().__init__(status, shorten(message, LONGEST_MESSAGE), headers)
        self.param, self.code = param, code

    def body(self) -> dict[str, object]:
        """The answer as a JSON object."""
        kind = KINDS.get(
            self.status_code, "server_error" if self.status_code >= 500 else "invalid_request_error"
        )
        error = {"message": self.detail, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> JSONResponse:
        """The answer, with its status and headers."""
        return JSONResponse(self.body(), self.status_code, self.headers)


def shutting_down() -> ApiError:
    """To requests that come while the server stops."""
    return ApiError(503, "the server is shutting down; come back later", retry_after=5)


def too_late(seconds: float, kept: str) -> ApiError:
    """To requests that took longer than a request may. kept: what remains of their work."""
    return ApiError(504, f"more than {seconds:g} seconds have passed; {kept}", code="timeout")


def explain(error: BaseException) -> ApiError:
    """The answer to an error; of an unexpected one, the details go to the log alone."""
    match error:
        case ApiError():
            return error
        case StarletteHTTPException():
            return ApiError(error.status_code, f"{error.detail}; docs/server.md says what there is")
        case RequestValidationError():
            return explain_fields(error.errors()[0])
        case Ended():
            return shutting_down()
        case UnknownName() | TakenName() | HeldElsewhere() | OtherModel() | Damaged():
            status, code = REFUSALS[type(error)]
            return ApiError(status, str(error), code=code)
        case EndpointError():
            return _explain_upstream(error)
        case UnicodeEncodeError():
            return ApiError(400, "the text is no text: it has half of a surrogate pair; mend it")
        case ValueError():
            return ApiError(400, str(error))
        case OSError(errno=errno.EMFILE | errno.ENFILE):
            return ApiError(
                503, "no file descriptor is left; come back later", code="busy", retry_after=1
            )
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return ApiError(507, error.strerror or "the disk is full; make room", code="disk_full")
        case OSError(errno=errno.EROFS):
            return ApiError(507, error.strerror or "read-only", code="disk_read_only")
        case OSError():
            return ApiError(500, f"the disk fails: {error.strerror}", code="disk_failure")
        case _:
            return ApiError(500, "the server failed; its log says why")


def _explain_upstream(error: EndpointError) -> ApiError:
    """Its own status where it has one that says what is wrong."""
    has_status = error.status is not None and error.status >= 400
    status = error.status if has_status and error.status else UPSTREAM_FAULTS.get(error.fault, 502)
    wait = error.wait_seconds
    return ApiError(
        status,
        str(error),
        code=f"upstream_{error.fault}",
        retry_after=None if wait is None else math.ceil(wait),
    )


def explain_fields(error: Mapping[str, Any]) -> ApiError:
    """The answer to an error of pydantic's: it names the field, its value and the fix."""
    kind, message = error["type"], error["msg"].removeprefix("Value error, ")
    path = [str(part) for part in error["loc"] if part not in ("query", "path")]
    param = shorten(".".join([*path, *error.get("ctx", {}).get("field", [])]), MOST_SHOWN) or None
    field = param or "the body"
    match kind:
        case "missing":
            return ApiError(422, f"{field} is missing; give it", param=param)
        case "refused":
            return ApiError(400, f"{field} {message}", param=param)
        case "value_error":
            return ApiError(400, message, param=param)
        case "too_long":
            count, most = error["ctx"]["actual_length"], error["ctx"]["max_length"]
            return ApiError(422, f"{field} has {count} items; use {most} or fewer", param=param)
        case _:
            given, advice = _show(error.get("input")), ADVICE.get(kind, message)
            return ApiError(422, f"{field} is {given}: {advice}", param=param)


def _show(value: Any) -> str:
    is_long = isinstance(value, dict | list) or (isinstance(value, str) and len(value) > MOST_SHOWN)
    shown = f"a {type(value).__name__}" if is_long else repr(value)
    return shown if len(shown) <= MOST_SHOWN else f"a {type(value).__name__}"


def shorten(text: str, most: int) -> str:
    """A text without its middle, if it has more than so many characters."""
    half = most // 2 - 2
    return text if len(text) <= most else f"{text[:half]} ... {text[-half:]}"


async def answer(_: Request, error: Exception) -> JSONResponse:
    """FastAPI's exception handler: the response to an error, which is logged if it is our fault."""
    told = explain(error)
    if told.status_code in FAULTS:
        LOG.error("a request failed", exc_info=error)
    return told.response()
