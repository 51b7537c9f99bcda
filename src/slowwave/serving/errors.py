"""Errors as OpenAI's clients expect them."""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping
from typing import Any

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from slowwave.memory.names import Damaged, HeldElsewhere, OtherModel, TakenName, UnknownName
from slowwave.serving.engine import Ended

LOG = logging.getLogger("slowwave.serving")

MOST_SIGNS = 500
"""Of a sentence, in which a client may be told what it sent."""
MOST_SHOWN = 40
"""Signs of a value."""

CLIENT_GONE = 499
"""Status of what nobody is there to read."""
FAULTS = (500, 507)
"""Statuses of what is no client's fault."""

KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}

# What pydantic says in words of its own.
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
        super().__init__(status, shorten(message, MOST_SIGNS), headers)
        self.param, self.code = param, code

    def body(self) -> dict[str, object]:
        """What is answered."""
        kind = KINDS.get(
            self.status_code, "server_error" if self.status_code >= 500 else "invalid_request_error"
        )
        return {
            "error": {
                "message": self.detail,
                "type": kind,
                "param": self.param,
                "code": self.code,
            }
        }


def shutting_down() -> ApiError:
    """To those who come too late."""
    return ApiError(503, "the server is shutting down; come back later", retry_after=5)


def too_late(seconds: float, kept: str) -> ApiError:
    """To those who asked for more than fits into the time."""
    return ApiError(504, f"more than {seconds:g} seconds have passed; {kept}", code="timeout")


def explain(error: BaseException) -> ApiError:
    """The answer to what went wrong; what is nobody's fault but ours is not told in detail."""
    match error:
        case ApiError():
            return error
        case StarletteHTTPException():
            return ApiError(error.status_code, f"{error.detail}; docs/server.md says what there is")
        case RequestValidationError():
            return explain_fields(error.errors()[0])
        case Ended():
            return shutting_down()
        case UnknownName():
            return ApiError(404, str(error), code="memory_not_found")
        case TakenName():
            return ApiError(409, str(error), code="name_taken")
        case HeldElsewhere():
            return ApiError(409, str(error), code="memory_in_use")
        case OtherModel():
            return ApiError(409, str(error), code="other_model")
        case Damaged():
            return ApiError(500, str(error), code="memory_damaged")
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


def explain_fields(error: Mapping[str, Any]) -> ApiError:
    """A wrong field of a request, as pydantic describes it: its name, its value, what is wrong."""
    kind, message = error["type"], error["msg"].removeprefix("Value error, ")
    places = [str(place) for place in error["loc"] if place not in ("query", "path")]
    param = shorten(".".join([*places, *error.get("ctx", {}).get("field", [])]), MOST_SHOWN) or None
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
    """A text without its middle, if it has more signs than that."""
    half = most // 2 - 2
    return text if len(text) <= most else f"{text[:half]} ... {text[-half:]}"


async def answer(_: Request, error: Exception) -> JSONResponse:
    """For FastAPI: the response to an error; what is no client's fault is told to the log."""
    told = explain(error)
    if told.status_code in FAULTS:
        LOG.error("a request failed", exc_info=error)
    return JSONResponse(told.body(), told.status_code, told.headers)
