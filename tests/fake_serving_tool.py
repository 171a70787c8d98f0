"""A tool that serves, real in every way but tiny: a wheel with an HTTP server, in an environment.

Its behaviour is an option of the order: `order(model, behaviour="dies")`.
"""

from pathlib import Path

import pytest

from swiftcore.backends import Backend, Environment, ServeOrder, ServingTool
from swiftcore.backends.serving import AdapterRoutes, Command, Place, flag, named_folders
from swiftcore.recipe import Runtime
from swiftcore.recipe.sections import ToolSettings
from tests.fake_backend import index_variables, lock_of, write_wheel

SERVER = """
import argparse, json, os, signal, subprocess, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int)
parser.add_argument("--name")
parser.add_argument("--adapters", nargs="*", default=[])
parser.add_argument("--behaviour", default="serves")
parser.add_argument("--api-key", default=os.environ.get("FAKE_KEY"))
options = parser.parse_args()
adapters = dict(word.split("=") for word in options.adapters)


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, status, fields):
        body = json.dumps(fields).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/health":
            self.answer(200, {})
        elif self.headers["Authorization"] != "Bearer " + options.api_key:
            self.answer(401, {"error": "no key"})
        elif self.path == "/v1/models":
            self.answer(200, {"data": [{"id": name} for name in (options.name, *adapters)]})
        else:
            shown = {"argv": sys.orig_argv, "variables": dict(os.environ), "cwd": os.getcwd()}
            self.answer(200, shown)

    def do_POST(self):
        fields = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = fields["lora_name"]
        if self.path == "/v1/load_lora_adapter" and os.path.isdir(fields["lora_path"]):
            adapters[name] = fields["lora_path"]
            self.answer(200, {})
        elif self.path == "/v1/unload_lora_adapter" and adapters.pop(name, None):
            self.answer(200, {})
        else:
            self.answer(400, {"error": "no such adapter"})


def sleeper(**options):
    program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    return subprocess.Popen([sys.executable, "-I", "-c", program], **options).pid


def serves():
    pids = [sleeper(), sleeper(start_new_session=True)]
    server = ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
    print("pids", os.getpid(), *pids, flush=True)
    server.serve_forever()


def shares():
    from multiprocessing import shared_memory

    memory = shared_memory.SharedMemory(create=True, size=1)
    print("shm", memory.name, flush=True)
    serves()


def stubborn():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    serves()


def never():
    serving = sleeper(start_new_session=True)
    print("pids", os.getpid(), serving, flush=True)
    print("loading weights", flush=True)
    time.sleep(600)


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def port_taken():
    if not os.path.exists("tried"):
        open("tried", "w").close()
        sys.exit("OSError: [Errno 98] Address already in use")
    serves()


def port_always_taken():
    sys.exit("OSError: [Errno 98] Address already in use")


def says_out_of_memory():
    raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")


def says_unsupported():
    print("ValueError: Model architectures ['OddForCausalLM'] are not supported for now.")
    raise RuntimeError("Engine core initialization failed. See root cause above.")


def says_import_error():
    import no_such_module_of_the_tool


def dies():
    raise KeyError("no such layer")


globals()[options.behaviour]()
"""


def fake_tool(folder: Path, *, key_flag: bool = False) -> ServingTool:
    """Return the fake tool, whose backend's files are written into a folder.

    Args:
        folder: holds the backend's folder.
        key_flag: take the key as an argument instead of a variable.
    """
    place = folder / "backend"
    (place / "wheels").mkdir(parents=True, exist_ok=True)
    wheel = write_wheel(place / "wheels", "fake_server", {"fake_server.py": SERVER})
    (place / "requirements.lock").write_text(lock_of(wheel))
    backend = Backend("fake_server", "answers", place, "fake-server", ("fake_server",), 1)

    def command(order: ServeOrder, place: Place) -> Command:
        words = ["--port", str(place.port), "--name", order.name]
        for name, value in (order.settings.vllm_engine_kwargs or {}).items():
            words += flag(name, value)
        if order.adapters:
            words += ["--adapters", *named_folders(order.adapters)]
        variables = {"FAKE_VARIABLE": "set"}
        if key_flag:
            return Command("fake_server", words, variables, key_flag="--api-key")
        return Command("fake_server", words, variables, key_variable="FAKE_KEY")

    routes = None if key_flag else AdapterRoutes("/v1/load_lora_adapter", "/v1/unload_lora_adapter")
    return ServingTool("Fake", backend, "cpu", command, routes)


def install_fake_tool(folder: Path) -> None:
    """Build the fake tool's environment below a folder."""
    tool = fake_tool(folder)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in index_variables(tool.backend).items():
            patch.setenv(name, value)
        Environment(tool.backend, folder / "root").install()


def fake_runtime(folder: Path) -> Runtime:
    """Return a runtime that finds the environment which `install_fake_tool` built in a folder."""
    return Runtime(backends_dir=folder / "root", num_threads=1)


def fake_order(model_dir: Path, behaviour: str = "serves", **fields) -> ServeOrder:
    """Return an order that makes the fake tool behave in a way."""
    settings = ToolSettings(vllm_engine_kwargs={"behaviour": behaviour})
    return ServeOrder("vllm", model_dir, settings=settings, **fields)
