import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest

from swiftcore.errors import (
    ArtifactDamaged,
    EnvironmentMissing,
    GateRefused,
    ModelMissing,
    UsageError,
)
from swiftcore.serving import (
    Golden,
    Release,
    deploy_release,
    list_endpoints,
    rollback,
    status,
    stop,
)

TESTS = Path(__file__).parent


@pytest.fixture(autouse=True)
def stub_on_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(TESTS))


@pytest.fixture
def state_dir(tmp_path):
    path = tmp_path / "serving" / "demo"
    yield path
    stop(path)
    assert processes_of(path) == []


@pytest.fixture
def make_release(tmp_path):
    def make(answer, behaviour="", version=None):
        folder = tmp_path / f"model-{answer}"
        folder.mkdir(exist_ok=True)
        (folder / "answer.txt").write_text(answer)
        (folder / "behaviour.txt").write_text(behaviour)
        return Release(
            fingerprint=f"{answer}-{behaviour}",
            name="demo",
            version=version,
            model_dir=folder,
            server="stub_server",
        )

    return make


def processes_of(state_dir):
    """Return every process whose command line names this endpoint's folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(state_dir) in line and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(line)
    return found


def ask(url, **fields):
    body = {"model": "demo", "messages": [], **fields}
    return httpx.post(url + "/v1/chat/completions", json=body, timeout=60)


def said(url):
    response = ask(url)
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["message"]["content"]


def golden(expected):
    return [Golden(expected, messages=[{"role": "user", "content": "which colour?"}])]


def decisions(state_dir):
    lines = (state_dir / "journal.jsonl").read_text().splitlines()
    return [json.loads(line)["decision"] for line in lines]


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_deploy_switch_and_rollback_without_a_failed_request(state_dir, make_release):
    blue, green = make_release("blue", version="1"), make_release("green", version="2")
    first = deploy_release(blue, state_dir=state_dir, golden=golden("blue"))
    assert (said(first.url), first.previous, first.golden_matched) == ("blue", None, 1)
    assert not first.reused

    answers, stopping = [], threading.Event()

    def load():
        with httpx.Client(timeout=60) as client:
            while not stopping.is_set():
                response = client.post(first.url + "/v1/chat/completions", json={"model": "demo"})
                answers.append((response.status_code, response.text))

    clients = [threading.Thread(target=load) for _ in range(4)]
    for client in clients:
        client.start()
    second = deploy_release(green, state_dir=state_dir, golden=golden("green"))
    back = rollback(state_dir)
    stopping.set()
    for client in clients:
        client.join()

    assert {code for code, _ in answers} == {200}
    assert {"blue", "green"} == {"blue" if "blue" in text else "green" for _, text in answers}
    assert second.url == back.url == first.url
    assert second.previous.startswith("demo@1")
    assert back.previous.startswith("demo@2")
    assert back.golden_matched == 1  # the golden answers came with the release
    assert said(first.url) == "blue"
    until(lambda: decisions(state_dir).count("retired") == 2)
    assert len(processes_of(state_dir)) == 2  # the gateway and one server
    assert not psutil.pid_exists(second.pid)


def test_same_release_again_restarts_nothing(state_dir, make_release):
    release = make_release("blue")
    first = deploy_release(release, state_dir=state_dir)
    again = deploy_release(release, state_dir=state_dir, verify=lambda _: pytest.fail("not needed"))
    assert again.reused
    assert again.pid == first.pid
    assert again.seconds < 1


def test_wrong_golden_answer_is_refused_and_the_old_model_keeps_answering(state_dir, make_release):
    first = deploy_release(make_release("blue"), state_dir=state_dir)
    before = processes_of(state_dir)
    with pytest.raises(GateRefused) as caught:
        deploy_release(make_release("green"), state_dir=state_dir, golden=golden("red"))
    assert caught.value.exit_code == 4
    assert "which colour?" in caught.value.where
    assert "red" in caught.value.expected
    assert "green" in caught.value.found
    assert said(first.url) == "blue"
    assert processes_of(state_dir) == before
    assert "refused" in decisions(state_dir)
    assert status(state_dir)["previous"] is None


@pytest.mark.parametrize(
    ("behaviour", "kind", "text"),
    [
        ("broken", GateRefused, "did not answer the probe"),
        ("crash", GateRefused, "no such kernel"),
        ("never ready", GateRefused, "did not become ready"),
        ("refuse", ModelMissing, "there is no model"),
    ],
)
def test_new_model_that_fails_its_probe_leaves_the_old_one(
    state_dir, make_release, behaviour, kind, text
):
    first = deploy_release(make_release("blue"), state_dir=state_dir)
    before = processes_of(state_dir)
    with pytest.raises(kind, match=text):
        deploy_release(
            make_release("green", behaviour), state_dir=state_dir, start_timeout_seconds=2
        )
    assert said(first.url) == "blue"
    assert processes_of(state_dir) == before


def test_failed_first_deployment_leaves_nothing_running(state_dir, make_release):
    with pytest.raises(GateRefused):
        deploy_release(make_release("blue", "crash"), state_dir=state_dir)
    assert processes_of(state_dir) == []
    assert status(state_dir)["status"] == "stopped"


def test_changed_files_are_refused_before_anything_starts(state_dir, make_release):
    def verify(release):
        raise ArtifactDamaged("a file differs from its record", where=release.model_dir)

    with pytest.raises(ArtifactDamaged):
        deploy_release(make_release("blue"), state_dir=state_dir, verify=verify)
    assert processes_of(state_dir) == []
    first = deploy_release(make_release("blue"), state_dir=state_dir)
    with pytest.raises(ArtifactDamaged):
        deploy_release(make_release("green"), state_dir=state_dir, verify=verify)
    assert said(first.url) == "blue"


def test_taken_port_is_named_with_its_owner_and_nothing_is_left(state_dir, make_release):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(EnvironmentMissing) as caught:
            deploy_release(make_release("blue"), state_dir=state_dir, port=port)
    assert caught.value.exit_code == 5
    assert str(port) in str(caught.value)
    assert str(os.getpid()) in caught.value.found
    assert "--set runtime.port=" in caught.value.do
    assert processes_of(state_dir) == []


def test_another_port_for_a_running_endpoint_is_refused(state_dir, make_release):
    first = deploy_release(make_release("blue"), state_dir=state_dir)
    with pytest.raises(UsageError, match="another address"):
        deploy_release(make_release("green"), state_dir=state_dir, port=1)
    assert said(first.url) == "blue"


def test_server_that_dies_is_started_again_and_no_request_fails(state_dir, make_release):
    first = deploy_release(make_release("blue"), state_dir=state_dir)
    os.kill(first.pid, signal.SIGKILL)
    assert said(first.url) == "blue"
    until(lambda: status(state_dir)["status"] == "ready")
    assert status(state_dir)["backend_pid"] not in (None, first.pid)
    assert httpx.get(first.url + "/health").json()["status"] == "ok"
    assert {"backend died", "restarted"} <= set(decisions(state_dir))


def test_request_that_kills_the_server_ends_in_a_502_and_restarts_are_bounded(
    state_dir, make_release
):
    first = deploy_release(make_release("blue"), state_dir=state_dir)
    statuses = [ask(first.url, die=True).status_code for _ in range(2)]
    assert statuses[0] == 502  # asked three times, died three times
    until(lambda: status(state_dir)["status"] == "failed", 60)
    assert "died" in status(state_dir)["problem"]
    health = httpx.get(first.url + "/health")
    assert (health.status_code, health.json()["status"]) == (503, "failed")
    assert ask(first.url).status_code == 503
    again = deploy_release(make_release("blue"), state_dir=state_dir)
    assert said(again.url) == "blue"


def test_server_is_not_started_again_from_other_files(state_dir, make_release):
    release = make_release("blue")
    first = deploy_release(release, state_dir=state_dir)
    (release.model_dir / "answer.txt").write_text("evil")
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: status(state_dir)["status"] == "failed")
    assert "not what was deployed" in status(state_dir)["problem"]
    assert ask(first.url).status_code == 503


def test_killed_gateway_takes_its_server_along_and_can_be_replaced(state_dir, make_release):
    first = deploy_release(make_release("blue", version="1"), state_dir=state_dir)
    deploy_release(make_release("green", version="2"), state_dir=state_dir)
    server = status(state_dir)["backend_pid"]
    os.kill(status(state_dir)["gateway_pid"], signal.SIGKILL)
    until(lambda: not psutil.pid_exists(server) or processes_of(state_dir) == [])
    assert status(state_dir)["status"] == "dead"
    port = int(first.url.rpartition(":")[2])
    again = rollback(state_dir)
    assert again.url == first.url
    assert again.url.endswith(f":{port}")
    assert said(again.url) == "blue"
    assert again.previous.startswith("demo@2")


def test_port_that_is_still_being_given_back_is_waited_for(state_dir, make_release):
    with socket.socket() as dying:
        dying.bind(("127.0.0.1", 0))  # held, but nobody listens: as by a process that is ending
        port = dying.getsockname()[1]
        timer = threading.Timer(1.0, dying.close)
        timer.start()
        assert deploy_release(make_release("blue"), state_dir=state_dir, port=port).url.endswith(
            f":{port}"
        )
        timer.join()


def test_endpoint_survives_the_process_that_deployed_it(state_dir, make_release, tmp_path):
    release = make_release("blue")
    script = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from swiftcore.serving import Release, deploy_release\n"
        "release = Release.from_dict(json.loads(sys.argv[1]))\n"
        "print(deploy_release(release, state_dir=Path(sys.argv[2])).url)\n"
    )
    command = [sys.executable, "-c", script, json.dumps(release.as_dict()), str(state_dir)]
    child = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=True, start_new_session=True
    )
    url = child.stdout.strip()
    assert said(url) == "blue"
    assert list_endpoints(state_dir.parent)["demo"]["url"] == url
    assert stop(state_dir)
    assert not stop(state_dir)
    assert processes_of(state_dir) == []
    assert status(state_dir)["status"] == "stopped"
    with pytest.raises(httpx.ConnectError):
        httpx.get(url + "/health")


def test_deployer_that_is_killed_leaves_no_server_behind(state_dir, make_release):
    first = deploy_release(make_release("blue"), state_dir=state_dir)
    before = processes_of(state_dir)
    release = make_release("green", "never ready")
    script = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from swiftcore.serving import Release, deploy_release\n"
        "deploy_release(Release.from_dict(json.loads(sys.argv[1])), state_dir=Path(sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", script, json.dumps(release.as_dict()), str(state_dir)]
    child = subprocess.Popen(command)
    until(lambda: "candidate started" in decisions(state_dir)[2:])
    child.kill()
    child.wait()
    until(lambda: processes_of(state_dir) == before)
    assert said(first.url) == "blue"


def test_stream_in_flight_is_finished_by_the_old_server(state_dir, make_release):
    first = deploy_release(make_release("blue"), state_dir=state_dir)
    pieces = []
    body = {"model": "demo", "stream": True}
    with httpx.stream("POST", first.url + "/v1/completions", json=body, timeout=60) as stream:
        for piece in stream.iter_text():
            if not pieces:
                deploy_release(make_release("green"), state_dir=state_dir)
                assert said(first.url) == "green"
            pieces.append(piece)
    assert "".join(pieces) == "".join(f"blue{i} " for i in range(20)) + "end"
    assert len(pieces) > 3  # passed on as they came


def test_rollback_with_nothing_before_and_with_a_deleted_target(state_dir, make_release):
    with pytest.raises(UsageError, match="nothing to roll back"):
        rollback(state_dir)
    blue, green = make_release("blue"), make_release("green")
    deploy_release(blue, state_dir=state_dir)
    with pytest.raises(UsageError, match="nothing to roll back"):
        rollback(state_dir)
    url = deploy_release(green, state_dir=state_dir).url
    (blue.model_dir / "answer.txt").unlink()
    with pytest.raises(GateRefused):
        rollback(state_dir)
    assert said(url) == "green"


def test_two_deployments_at_once_share_one_gateway(state_dir, make_release):
    results, release = [], make_release("blue")

    def deploy():
        results.append(deploy_release(release, state_dir=state_dir))

    threads = [threading.Thread(target=deploy) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({result.pid for result in results}) == 1
    assert sorted(result.reused for result in results) == [False, True]
    assert len(processes_of(state_dir)) == 2


def test_gateway_refuses_what_is_not_the_api_and_large_bodies(state_dir, make_release):
    url = deploy_release(make_release("blue"), state_dir=state_dir).url
    missing = httpx.get(url + "/admin")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "unknown_url"
    large = httpx.post(url + "/v1/completions", content=b"x" * (5 * 2**20))
    assert large.status_code == 413
    assert large.json()["error"]["code"] == "body_too_large"


def test_state_files_are_private_and_a_damaged_one_is_named(state_dir, make_release):
    deploy_release(make_release("blue"), state_dir=state_dir)
    assert (state_dir / "control.json").stat().st_mode & 0o077 == 0
    stop(state_dir)
    (state_dir / "state.json").write_text("{")
    with pytest.raises(ArtifactDamaged, match="state file"):
        status(state_dir)
    (state_dir / "state.json").unlink()


def test_release_survives_json():
    release = Release("f", "demo", "3", Path("/m"), Path("/a"), aliases=("demo@champion",))
    assert Release.from_dict(json.loads(json.dumps(release.as_dict()))) == release
    assert release.names == ("demo", "demo@3", "demo@champion")
    assert replace(release, version=None).names == ("demo", "demo@champion")
