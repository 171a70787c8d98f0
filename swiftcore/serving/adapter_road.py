"""The private road on which a gateway changes the adapters of a server.

It is a path of the server's private port that the gateway passes no request to, and it exists only
for who knows a token that the server got in its environment: to anyone else the path is unknown.

request  {"command": "stage", "adapters": {name: folder}}       200 {"names": {name: hidden name}}
         {"command": "publish", "names": [...], "fingerprint"}  200 {}
         {"command": "discard"}                                 200 {}
refused  409 {"needs_new_server": why}, or 400 {"error": {...}}, a SwiftError's fields
"""

import hmac
import json
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from swiftcore.errors import SwiftError
from swiftcore.serving.adapter_set import AdapterSet, NeedsNewServer
from swiftcore.serving.server import ADAPTER_PATH


class AdapterRoad:
    """ASGI application: the road, and before it the server's own application.

    It also counts the requests under way, which an adapter is unloaded after.
    """

    def __init__(self, app: ASGIApp, adapters: AdapterSet, token: str) -> None:
        self._app, self._adapters, self._token = app, adapters, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Obey the gateway, or pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] == ADAPTER_PATH and self._is_from_the_gateway(scope):
            order = json.loads(await Request(scope, receive).body())
            await (await self._obeyed(order))(scope, receive, send)
            return
        number = self._adapters.requests.begin()
        try:
            await self._app(scope, receive, send)
        finally:
            self._adapters.requests.end(number)

    def _is_from_the_gateway(self, scope: Scope) -> bool:
        _, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        return hmac.compare_digest(given.encode(), self._token.encode())

    async def _obeyed(self, order: dict[str, Any]) -> JSONResponse:
        try:
            if order["command"] == "stage":
                folders = {name: Path(folder) for name, folder in order["adapters"].items()}
                return JSONResponse({"names": await self._adapters.stage(folders)})
            if order["command"] == "publish":
                await self._adapters.publish(order["names"], order["fingerprint"])
            else:
                await self._adapters.discard()
        except NeedsNewServer as reason:
            return JSONResponse({"needs_new_server": str(reason)}, 409)
        except SwiftError as error:
            return JSONResponse({"error": error.as_dict()}, 400)
        return JSONResponse({})
