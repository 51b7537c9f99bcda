"""Who asks, and of which server."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from fastapi import Depends, Request

from slowwave.serving.server import Server


@dataclasses.dataclass(frozen=True, slots=True)
class Access:
    """A request that was let in. notes: what the access log says of it besides."""

    server: Server
    owner: str
    notes: dict[str, Any]


async def find_access(request: Request) -> Access:
    """What the front door has found out; async, for FastAPI would call it in another thread."""
    return Access(request.app.state.server, request.state.owner, request.state.notes)


Asked = Annotated[Access, Depends(find_access)]
