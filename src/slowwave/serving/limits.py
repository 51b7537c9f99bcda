"""/v1/limits: what requests may hold, for a client that says so before it sends."""

from __future__ import annotations

from fastapi import APIRouter

from slowwave.serving.access import Asked
from slowwave.serving.requests import HIGHEST_TEMPERATURE, LONGEST_NAME
from slowwave.sleep.config import MOST_PASSES

router = APIRouter(tags=["limits"])


@router.get("/v1/limits")
async def show_limits(access: Asked) -> dict[str, int]:
    """The limits of this server, and the values of fields that a request leaves out."""
    config = access.server.config
    return {
        "max_name_length": LONGEST_NAME,
        "max_body_bytes": config.max_body_bytes,
        "max_prompt_tokens": config.max_prompt_tokens,
        "max_tokens": config.max_tokens,
        "default_max_tokens": config.default_max_tokens,
        "max_temperature": HIGHEST_TEMPERATURE,
        "max_passes": MOST_PASSES,
        "default_passes": access.server.talker.sleep.passes,
    }
