"""Programs of models: what a sandbox lets them do, and how code benchmarks use it."""

import json
import os
import socket
import sys

import pytest

from swiftcore.evaluation.answering import Answer
from swiftcore.evaluation.benchmarks.code import completed, run_tests, written_code
from swiftcore.evaluation.benchmarks.planning import benchmark_files, plan_benchmarks
from swiftcore.evaluation.benchmarks.running import graded
from swiftcore.evaluation.sandbox import Limits, open_sandbox
from swiftcore.generation import Completion
from swiftcore.recipe import EvaluateSection
from tests.test_benchmarks import write_lines

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is built on Linux")

PROMPT = 'import math\n\ndef area(r):\n    """Return the area of a circle."""\n'
TASK = {
    "task_id": "HumanEval/0",
    "prompt": PROMPT,
    "entry_point": "area",
    "canonical_solution": "    return math.pi * r * r\n",
    "test": "def check(candidate):\n    assert abs(candidate(1) - 3.14159) < 1e-3\n",
}
MBPP = [
    {"task_id": n, "text": f"Write double{n}.", "code": f"def double{n}(x): return 2 * x",
     "test_list": [f"assert double{n}(3) == 6"], "test_setup_code": ""}
    for n in (2, 3, 4, 11, 600)
]  # fmt: skip


def answered(text: str) -> Answer:
    return Answer("", Completion([], text, "stop", 1, 1), None)


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("assert 1 + 1 == 2", None),
        ("open('mine', 'w').write('x'); assert open('mine').read() == 'x'", None),
        ("import threading; t = threading.Thread(target=print); t.start(); t.join()", None),
        ("assert 1 + 1 == 3, 'no'", "AssertionError: no"),
        ("raise SystemExit(0)", "ends before its tests"),
        ("import os; os._exit(0)", "ends before its tests"),
        ("def broken(:", "SyntaxError"),
        ("x = 'a' * (3 << 30)", "MemoryError"),
        ("def f(): f()\nf()", "RecursionError"),
        ("open('big', 'wb').write(b'x' * (64 << 20))", "OSError"),
        ("import ctypes; ctypes.string_at(0)", "killed by signal 11"),
        ("import time; time.sleep(60)", "no end within 1 seconds"),
        ("import os\nwhile True: os.fork()", "Error"),
        ("import subprocess; subprocess.run(['true'])", "Error"),
        ("'\ud800'", "UnicodeEncodeError"),
    ],
)
def test_a_program_ends_as_its_limits_say(program, why):
    outcome = open_sandbox().run(program, Limits(seconds=1 if "sleep" in program else 30))
    assert outcome.passed == (why is None)
    assert why is None or why in outcome.why


def test_nothing_gets_out_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    sandbox = open_sandbox()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        program = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)"
        assert not sandbox.run(program).passed
    program = "import os; assert not [name for name in os.environ if 'TOKEN' in name]"
    assert sandbox.run(program).passed
    before = set(os.listdir("/tmp"))
    target = tmp_path / "out"
    outcome = sandbox.run(f"open({str(target)!r}, 'w').write('x')")
    if "namespaces" in sandbox.measures:
        assert not outcome.passed
        assert not target.exists()
        assert sandbox.run("import os; assert os.listdir('/proc') == []").passed
    left = set(os.listdir("/tmp")) - before
    assert not [name for name in left if name.startswith("swift-sandbox")]


@pytest.mark.parametrize(
    ("answer", "passes"),
    [
        ("    return math.pi * r * r", True),
        ("Here it is:\n```python\ndef area(r):\n    return 3.14159 * r * r\n```\nGood luck!", True),
        (
            "```\nimport math\ndef helper(): pass\ndef area(r):\n    return math.pi * r ** 2\n```",
            True,
        ),
        ("```python\ndef area(r):\n    return math.pi * r * r", True),
        ("    return r", False),
        ("I can't write code.", False),
        ("```python\n```", False),
        ("def area(r): return math.pi * r * r  # \x00", False),
        ("    import sys; sys.exit(0)", False),
    ],
)
def test_an_answer_to_humaneval(tmp_path, answer, passes):
    write_lines(tmp_path / "humaneval.jsonl", [TASK])
    section = EvaluateSection(eval_dataset=["humaneval"])
    (planned,) = plan_benchmarks(section, benchmark_files(section, tmp_path))
    grade = graded(planned, planned.questions[0], answered(answer))
    assert grade.metrics == {"pass_at_1": float(passes)}
    assert (grade.note is None) == passes
    assert planned.as_dict()["sandbox"][-1] == "limits"


def test_code_that_defines_the_function_replaces_it_and_a_body_continues_it():
    assert completed(PROMPT, "    return 1", "area") == PROMPT + "    return 1"
    whole = completed(PROMPT, "def area(r):\n    return 1", "area")
    assert whole.startswith("import math")
    assert whole.count("def area") == 1
    assert written_code("```py\nx\n```\n```py\ndef f(): 1\n```", "f") == "def f(): 1\n"


def test_mbpp_shows_its_examples_and_asks_its_test_part(tmp_path):
    write_lines(tmp_path / "mbpp.jsonl", MBPP)
    section = EvaluateSection(eval_dataset=["mbpp"])
    (planned,) = plan_benchmarks(section, benchmark_files(section, tmp_path))
    (question,) = planned.questions
    roles = [message["role"] for message in question.row["messages"]]
    assert roles == ["user", "assistant"] * 3 + ["user"]
    assert "double11" in question.row["messages"][-1]["content"]
    right = run_tests(question, answered(""), "```python\ndef double11(x): return x + x\n```")
    wrong = run_tests(question, answered(""), "```python\ndef double11(x): return x\n```")
    assert (right.metrics["pass_at_1"], wrong.metrics["pass_at_1"]) == (1, 0)
    assert wrong.note.startswith("AssertionError")
    assert json.dumps(planned.as_dict())
