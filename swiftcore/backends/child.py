"""The first code of a job's process, run by the backend's own Python: standard library only.

    python -I child.py JOB_SCRIPT WORK_DIR NEWS_FD

Two processes: a guard, which leads the process group, and below it the worker, which runs `run(job,
talk)` of the job script. Standard input is a pipe that the parent holds open and never writes to:
its end tells the guard that the parent is gone, however it went, and the guard ends the group. When
the worker ends, the guard passes its exit code on and ends whatever the tool left running.

News are JSON lines: {"done", "total", "text"} while the job runs, {"exit": code} at its end.
"""

import contextlib
import importlib.util
import json
import os
import signal
import sys
import threading
import traceback

# As swiftcore.errors has them; a job names one of these to refuse its work.
EXIT_CODES = {"UsageError": 2, "DataError": 3, "EnvironmentMissing": 5, "TransientError": 6}
CRASHED = 1


class Refusal(Exception):
    """The job can't be done as it was asked for, and the tool is not to blame."""

    def __init__(self, fields):
        super().__init__(fields["message"])
        self.fields = fields


class Talk:
    """What a job script may tell the one who waits for it."""

    def __init__(self, news):
        self._news = news

    def progress(self, done, total=None, text=""):
        """Say that `done` of `total` units are done."""
        _tell(self._news, {"done": done, "total": total, "text": text})

    def refuse(self, kind, message, found=None, expected=None, do=None):
        """End the job with an error of a kind in EXIT_CODES."""
        if kind not in EXIT_CODES:
            raise ValueError(f"a job refuses with one of {', '.join(EXIT_CODES)}, not {kind}")
        fields = {"message": message, "found": found, "expected": expected, "do": do}
        raise Refusal({"error": kind, **fields})


def main(script, work_dir, news):
    """Start the worker and guard it."""
    worker = os.fork()
    if worker == 0:
        os._exit(_work(script, work_dir, news))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _, status = os.waitpid(worker, 0)
    # The parent may be gone; then the group ends all the same.
    with contextlib.suppress(BrokenPipeError):
        _tell(news, {"exit": os.waitstatus_to_exitcode(status)})
    os.killpg(0, signal.SIGKILL)


def _end_with_parent():
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


def _work(script, work_dir, news):
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    try:
        with open(os.path.join(work_dir, "job.json"), encoding="utf-8") as stream:
            job = json.load(stream)
        answer = json.dumps(_load(script).run(job, Talk(news)), ensure_ascii=False)
        _write(os.path.join(work_dir, "answer.json"), answer)
        return 0
    except Refusal as refusal:
        _write(os.path.join(work_dir, "error.json"), json.dumps(refusal.fields))
        return EXIT_CODES[refusal.fields["error"]]
    except BaseException as error:
        # Tools end with SystemExit too; whatever it was, the log keeps it and the parent reads it.
        traceback.print_exc()
        crash = {"error": type(error).__name__, "message": str(error)}
        _write(os.path.join(work_dir, "error.json"), json.dumps(crash))
        return CRASHED
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()


def _load(script):
    spec = importlib.util.spec_from_file_location("job", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Tools pickle functions of the script for their own processes, and look them up by its name.
    sys.modules["job"] = module
    spec.loader.exec_module(module)
    return module


def _write(path, text):
    unfinished = path + ".unfinished"
    with open(unfinished, "w", encoding="utf-8", errors="backslashreplace") as stream:
        stream.write(text)
    os.replace(unfinished, path)


def _tell(news, fields):
    os.write(news, json.dumps(fields).encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
