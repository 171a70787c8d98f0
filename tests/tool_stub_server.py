"""swiftcore.serving.server whose tool is `fake_tool.py`, run with this interpreter.

All else is real: the guard above the tool, its key, its port, our engine and our API.
"""

import contextlib
import sys
from pathlib import Path

from swiftcore.backends import get_backend, tool_server
from swiftcore.backends.serving import AdapterRoutes, Command, ServingTool, named_folders
from swiftcore.backends.vllm.adapters import adapter_limits
from swiftcore.serving import server

TESTS = Path(__file__).parent


class HereEnvironment:
    @contextlib.contextmanager
    def in_use(self, *, install=False):
        yield Path(sys.executable)


def command(order, place):
    words = ["--port", str(place.port), "--named", *named_folders(order.adapters)]
    words += ["--trouble", (order.settings.vllm_quantization or "")]
    return Command("fake_tool", words, {"PYTHONPATH": str(TESTS)}, key_variable="FAKE_KEY")


def fake(name, device="auto"):
    routes = AdapterRoutes("/v1/load_lora_adapter", "/v1/unload_lora_adapter", adapter_limits)
    return ServingTool("Fake", get_backend("vllm_cpu"), "cpu", command, routes)


if __name__ == "__main__":
    tool_server.serving_tool = fake
    tool_server.open_environment = lambda backend, runtime: HereEnvironment()
    sys.exit(server.main())
