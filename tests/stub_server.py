"""A server process with the flags of swiftcore.serving.server and no model; starts quickly.

The model folder's `answer.txt` is what it says; `behaviour.txt` how it misbehaves, if it does.
"""

import asyncio
import json
import os
import socket
import sys

from swiftcore.errors import ModelMissing
from swiftcore.processes import die_with_parent
from swiftcore.serving import server


def main():
    arguments = server.parser().parse_args()
    die_with_parent(arguments.parent)
    folder = arguments.model
    path = folder / "behaviour.txt"
    behaviour = path.read_text() if path.exists() else ""
    if behaviour == "crash":
        print("no such kernel", flush=True)
        os._exit(7)
    if behaviour == "refuse":
        error = ModelMissing("there is no model", where=folder)
        arguments.error_file.write_text(json.dumps(error.as_dict()))
        return error.exit_code
    from swiftcore.serving.http_server import make_server

    app = App((folder / "answer.txt").read_text(), behaviour)
    uvicorn_server = make_server(
        app, header_timeout_seconds=5, log_level="warning", drain_seconds=2, lifespan=False
    )
    uvicorn_server.run(sockets=[socket.socket(fileno=arguments.fd)])
    return 0


class App:
    def __init__(self, answer, behaviour):
        self.answer, self.behaviour = answer, behaviour

    async def __call__(self, scope, receive, send):
        status, body = 200, {"status": "ready"}
        if scope["path"] == "/ready" and self.behaviour == "never ready":
            status = 503
        if scope["path"].startswith("/v1"):
            asked = json.loads((await receive())["body"])
            if asked.get("die"):
                os._exit(9)
            if self.behaviour == "broken":
                status = 500
            if asked.get("stream"):
                return await self.stream(send)
            await asyncio.sleep(0.005)
            message = {"content": self.answer}
            body = {"choices": [{"message": message, "text": self.answer}], "pid": os.getpid()}
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})

    async def stream(self, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for i in range(20):
            piece = f"{self.answer}{i} ".encode()
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(0.1)
        await send({"type": "http.response.body", "body": b"end"})


if __name__ == "__main__":
    sys.exit(main())
