"""A backend that is real in every way, but tiny: a wheel made here, a lock with its hash, a job."""

import base64
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

from swiftcore.backends import Backend, Fix

VERSION = "1.0"
JOB = """
import os, signal, subprocess, sys, time
import fake_tool

def run(job, talk):
    return globals()[job["behaviour"]](job, talk)

def add(job, talk):
    print("on stdout")
    print("on stderr", file=sys.stderr)
    for i, value in enumerate(job["numbers"]):
        talk.progress(i + 1, len(job["numbers"]), f"adding {value}")
    return {"total": fake_tool.add(*job["numbers"]), "tool": fake_tool.__file__,
            "swiftcore": "swiftcore" in sys.modules, "stdin": sys.stdin.read()}

def crash(job, talk):
    raise KeyError("no such layer")

def exit(job, talk):
    sys.exit(3)

def refuse(job, talk):
    talk.refuse("DataError", "rows are too short", found="3 tokens", do="longer ones")

def killed(job, talk):
    os.kill(os.getpid(), signal.SIGKILL)

def guard_killed(job, talk):
    os.kill(os.getppid(), signal.SIGKILL)
    wait(job, talk)

def wait(job, talk):
    other = subprocess.Popen([sys.executable, "-I", "-c", "import time; time.sleep(600)"])
    talk.progress(0, None, f"pids {os.getpid()} {other.pid}")
    time.sleep(600)

def leave_running(job, talk):
    other = subprocess.Popen([sys.executable, "-I", "-c", "import time; time.sleep(600)"])
    talk.progress(0, None, f"pids {other.pid}")
    return {"total": 0}

def stubborn(job, talk):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wait(job, talk)

def eat(job, talk):
    eaten = b"x" * 400_000_000
    talk.progress(0, None, "eaten")
    time.sleep(600)

def garbage(job, talk):
    return {"total": "a lot"}

def nothing(job, talk):
    return {}

def half(job, talk):
    open("answer.json", "w").write('{"total": 1')
    os._exit(0)
"""


def fake_backend(
    folder: Path, *, lock: str | None = None, size_bytes: int = 1, fixes: tuple[Fix, ...] = ()
) -> Backend:
    """Write a backend into a folder, with its wheel below `wheels`."""
    (folder / "wheels").mkdir(parents=True, exist_ok=True)
    adding = {"fake_tool.py": "def add(*numbers):\n    return sum(numbers)\n"}
    wheel = write_wheel(folder / "wheels", "fake_tool", adding)
    (folder / "requirements.lock").write_text(lock or lock_of(wheel))
    (folder / "job.py").write_text(JOB)
    return Backend(
        "fake", "adds numbers", folder, "fake-tool", ("fake_tool",), size_bytes, fixes=fixes
    )


def index_variables(backend: Backend) -> dict[str, str]:
    """Return what makes uv and pip find the wheel and ask no index."""
    wheels = str(backend.folder / "wheels")
    return {
        "UV_NO_INDEX": "1",
        "UV_DEFAULT_INDEX": "",
        "UV_FIND_LINKS": wheels,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": wheels,
    }


def write_wheel(folder: Path, name: str, modules: dict[str, str]) -> Path:
    """Write a pure wheel of some modules; its bytes are always the same."""
    info = f"{name}-{VERSION}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {VERSION}\n"
    files = {
        **modules,
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},{_record_hash(text)},{len(text)}\n" for name, text in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    path = folder / f"{name}-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            # A fixed date: the wheel, and so the lock and its digest, are the same each time.
            wheel.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), text)
    return path


def write_source(folder: Path) -> Path:
    """Write the tool as a package that has to be built: FAKE_TOTAL then is what it adds up to."""
    files = {"pyproject.toml": _PROJECT, "build.py": _BUILD, "PKG-INFO": _METADATA}
    path = folder / f"fake_tool-{VERSION}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"fake_tool-{VERSION}/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


_METADATA = f"Metadata-Version: 2.1\nName: fake-tool\nVersion: {VERSION}\n"
_PROJECT = f"""
[build-system]
requires = []
build-backend = "build"
backend-path = ["."]
[project]
name = "fake-tool"
version = "{VERSION}"
"""
_BUILD = f"""
import os, zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    total, info = os.environ["FAKE_TOTAL"], "fake_tool-{VERSION}.dist-info"
    files = {{
        "fake_tool.py": f"def add(*numbers):\\n    return {{total}}\\n",
        f"{{info}}/METADATA": {_METADATA!r},
        f"{{info}}/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }}
    files[f"{{info}}/RECORD"] = ""
    files[f"{{info}}/RECORD"] = "".join(f"{{name}},,\\n" for name in files)
    name = "fake_tool-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
    return name
"""


def lock_of(package: Path) -> str:
    """Return the lock of one wheel or source distribution."""
    name, version, *_ = package.name.removesuffix(".tar.gz").split("-")
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    return f"{name.replace('_', '-')}=={version} \\\n    --hash=sha256:{digest}\n"


def _record_hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
