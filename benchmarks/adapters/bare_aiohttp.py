"""No library: a loop over the lines of aiohttp's response."""

from __future__ import annotations

import json

from adapters._client import CANNOT, Client

LOOP = "asyncio"
__all__ = ["CANNOT", "LOOP"]


def client():
    import aiohttp

    def open_client(url):
        return aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0))

    async def texts(session):
        message = {"role": "user", "content": "Say it."}
        body = {"model": "bench", "messages": [message], "stream": True}
        async with session.post("/v1/chat/completions", json=body) as response:
            async for line in response.content:
                if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
                    yield json.loads(line[6:])["choices"][0]["delta"].get("content", "")

    return Client(LOOP, open_client, texts)


def __getattr__(work):
    """The rows over HTTP."""
    if work != "wire":
        raise AttributeError(work)
    return getattr(client(), work)
