"""Errors as OpenAI's clients expect them."""

from __future__ import annotations

import errno
import logging

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from slowwave.memory.refusals import Damaged, HeldElsewhere, OtherModel, TakenName, UnknownName
from slowwave.serving.engine import Ended

LOG = logging.getLogger("slowwave.serving")

FAULTS = (500, 507)
"""Statuses of what is no client's fault."""

KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
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
        super().__init__(status, message, headers)
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
            return ApiError(error.status_code, f"{error.detail}; see /docs for what there is")
        case RequestValidationError():
            return explain_fields(error)
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
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return ApiError(507, error.strerror or "the disk is full; make room", code="disk_full")
        case OSError():
            return ApiError(500, f"the disk fails: {error.strerror}", code="disk_failure")
        case _:
            return ApiError(500, "the server failed; its log says why")


def explain_fields(error: RequestValidationError) -> ApiError:
    """The first wrong field of a request, its value and what is wrong with it."""
    first = error.errors()[0]
    kind, given = first["type"], first.get("input")
    param = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    if kind == "json_invalid":
        return ApiError(400, "the body is no valid JSON; mend it")
    if kind == "missing":
        return ApiError(422, f"{param or 'the body'} is missing; give it", param=param or None)
    if kind == "extra_forbidden":
        return ApiError(400, f"{param} is not known here; leave it out", param=param)
    message = first["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        return ApiError(400, message, param=param or None)
    shown = repr(given)
    shown = shown if len(shown) <= 40 else f"a {type(given).__name__}"
    return ApiError(422, f"{param or 'the body'} is {shown}: {message}", param=param or None)


async def answer(_: Request, error: Exception) -> JSONResponse:
    """For FastAPI: the response to an error; what is no client's fault is told to the log."""
    told = explain(error)
    if told.status_code in FAULTS:
        LOG.error("a request failed", exc_info=error)
    return JSONResponse(told.body(), told.status_code, told.headers)
