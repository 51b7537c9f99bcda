"""An endpoint is a handler and a line of the table in app.py."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from fastapi import APIRouter

from serving_app import Make, run, serve
from slowwave.serving import app
from slowwave.serving.access import ApiKeys, _digest
from slowwave.serving.dependencies import CurrentAccess, body_of
from slowwave.serving.requests import Body


class EchoRequest(Body):
    text: str


router = APIRouter()


@router.post("/v1/echo")
async def echo(
    access: CurrentAccess, body: Annotated[EchoRequest, body_of(EchoRequest)]
) -> dict[str, str]:
    return {"owner": access.owner, "text": body.text}


def test_a_new_endpoint_wants_a_key_and_a_body(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "ROUTERS", (*app.ROUTERS, router))

    async def scenario(key: str | None, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        keys = ApiKeys({_digest("secret"): "ann"})
        async with serve(make(keys=keys), key=key) as client:
            response = await client.post("/v1/echo", json=body)
            return response.status_code, response.json()

    assert run(scenario("secret", {"text": "hi"})) == (200, {"owner": "ann", "text": "hi"})
    assert run(scenario(None, {"text": "hi"}))[0] == 401
    status, told = run(scenario("secret", {"text": "hi", "loud": True}))
    assert status == 400
    assert told["error"]["message"] == "loud is not known here; leave it out"
