"""The HTTP server of a tool, in small: vLLM's completions over token ids, with bad days on request.

A rule gives the token after some ids. As a process (`python fake_tool.py --port 0`) it counts, and
needs no torch.
"""

import argparse
import contextlib
import json
import os
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LMDEPLOY, OPENAI = "/generate", "/v1/completions"
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"


def counting(ids, model):
    """The rule of the process: each token is one more than the last, within 300 to 396."""
    return 300 + (ids[-1] + 1) % 97


class FakeTool(ThreadingHTTPServer):
    """Answers by a rule (ids, model name) -> next id.

    `trouble` gets the number of each generating request, from 1, and returns the name of a bad day
    or None; `asked` keeps the bodies; `num_open` counts answers under way. `adapters` holds folders
    by name; a folder's `behaviour.txt` says how it misbehaves: refuse, die, mute or slow.
    `likely` tells the log-probability of each id after some ids.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(
        self, rule, *, port=0, key=None, trouble=lambda number: None, score=None, likely=None
    ):
        super().__init__(("127.0.0.1", port), _Handler)
        self.rule, self.key, self.trouble, self.score = rule, key, trouble, score
        self.likely = likely
        self.asked, self.num_open, self.healthy, self.pause = [], 0, True, 0.0
        self.adapters = {}

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextlib.contextmanager
def fake_tool(rule, **settings):
    """Run one in a thread."""
    server = FakeTool(rule, **settings)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._send(200 if self.server.healthy else 503, {})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.key and self.headers["Authorization"] != f"Bearer {self.server.key}":
            self._send(401, {"error": "no"})
            return
        if self.path in (LOAD, UNLOAD):
            self._change_adapters(body["lora_name"], body.get("lora_path"))
            return
        self.server.asked.append(body)
        trouble = self.server.trouble(len(self.server.asked))
        behaviour = word_in(self.server.adapters.get(body.get("model")), "behaviour.txt")
        if trouble == "500" or behaviour == "mute":
            self._send(500, {"error": {"message": "on purpose"}})
        elif trouble == "400":
            self._send(400, {"error": {"message": "too hot"}})
        elif trouble == "closed":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif trouble == "die":
            os._exit(9)
        elif body.get("prompt_logprobs") is not None:
            self._send(200, {"choices": [{"prompt_logprobs": self.server.score(body["prompt"])}]})
        else:
            self.server.num_open += 1
            with contextlib.suppress(OSError):
                self._stream(body, trouble)
            self.server.num_open -= 1

    def _change_adapters(self, name, folder):
        behaviour = word_in(folder, "behaviour.txt")
        if behaviour == "die":
            os._exit(9)
        known = name in self.server.adapters
        if behaviour == "refuse" or known == (self.path == LOAD):
            self._send(400, {"error": {"message": f"no such rank: {name}"}})
            return
        if self.path == LOAD:
            self.server.adapters[name] = folder
        else:
            del self.server.adapters[name]
        print(self.path.rpartition("/")[2], name, flush=True)
        self._send(200, {})

    def _stream(self, body, trouble):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        ids = list(body["prompt"] if self.path == OPENAI else body["input_ids"])
        for number in range(1, body["max_tokens"] + 1):
            ids.append(self.server.rule(ids, body.get("model")))
            stopped = ids[-1] in body["stop_token_ids"]
            reason = "stop" if stopped else "length" if number == body["max_tokens"] else None
            if number == 4 and trouble:
                if trouble == "hangs":
                    time.sleep(30)
                self._event(
                    {
                        "broken": b"data: {",
                        "garbage": b"data: [1]\n\n",
                        "error": b'data: {"error": {"message": "out of memory"}}\n\n',
                    }[trouble]
                )
                return
            piece = self._piece(ids[-1], reason)
            if body.get("logprobs") is not None and self.server.likely:
                piece["choices"][0]["logprobs"] = self._told(ids, body)
            self._event(b"data: " + json.dumps(piece).encode() + b"\n\n")
            if reason:
                break
            slow = word_in(self.server.adapters.get(body.get("model")), "behaviour.txt") == "slow"
            time.sleep(0.05 if slow else self.server.pause)
        self._event(b"data: [DONE]\n\n")

    def _piece(self, token, reason):
        if self.path == LMDEPLOY:
            about = {"finish_reason": {"type": reason} if reason else None}
            return {"text": "?", "output_ids": [token], "meta_info": about}
        choice = {"index": 0, "text": "?", "token_ids": [token], "finish_reason": reason}
        return {"choices": [choice]}

    def _told(self, ids, body):
        """Return the log-probabilities of the last id as vLLM tells them, the id always in it."""
        told = self.server.likely(ids[:-1])
        most = sorted(told, key=told.get, reverse=True)[: body["logprobs"]]
        named = {f"token_id:{token}": told[token] for token in dict.fromkeys([ids[-1], *most])}
        return {"token_logprobs": [told[ids[-1]]], "top_logprobs": [named]}

    def _event(self, data):
        self.wfile.write(data)
        self.wfile.flush()

    def _send(self, status, body):
        written = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(written)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(written)


def word_in(folder, name):
    """Return the word in a file of a folder; None without a file or a folder."""
    try:
        with open(os.path.join(folder or "", name)) as stream:
            return stream.read().strip()
    except FileNotFoundError:
        return None


def counting_or_repeating(adapters):
    """The rule of the process, where an adapter says the token in its folder's `token.txt`."""

    def rule(ids, model):
        if model not in adapters:
            return counting(ids, model)
        return int(word_in(adapters[model], "token.txt") or 390)

    return rule


def main():
    command = argparse.ArgumentParser()
    command.add_argument("--port", type=int, required=True)
    command.add_argument("--named", nargs="*", default=[])
    command.add_argument("--trouble")
    options = command.parse_args()
    if options.trouble == "dies at once":
        raise RuntimeError("no such kernel")
    print("pid", os.getpid(), flush=True)
    adapters = dict(each.split("=", 1) for each in options.named)
    tool = FakeTool(
        counting_or_repeating(adapters),
        port=options.port,
        key=os.environ.get("FAKE_KEY"),
        trouble=lambda number: options.trouble or None,
    )
    tool.adapters = adapters
    tool.serve_forever()


if __name__ == "__main__":
    main()
