"""Hostile and broken documents cost one file, never more."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("pypdf", reason="the documents extra is not installed")

from swiftcore.data.documents import (
    DocumentExtractor,
    ExtractedDocument,
    ExtractionLimits,
    FailedDocument,
)
from swiftcore.data.documents.extract import extract, read_bytes
from swiftcore.data.documents.folders import FoundFile, SkippedFile, find_files
from swiftcore.data.documents.outcomes import DocumentRefused
from tests.documents_making import docx_bytes, epub_bytes, odt_bytes, pdf_bytes, written, zip_bytes
from tests.making import REPO

LIMITS = ExtractionLimits()


def reason_of(folder: Path, name: str, content: str | bytes, limits=LIMITS) -> str:
    path = written(folder, name, content)
    with pytest.raises(DocumentRefused) as caught:
        extract(path, limits)
    return caught.value.message


@pytest.fixture(scope="module")
def extractor():
    with DocumentExtractor(replace(LIMITS, seconds_a_file=20)) as extractor:
        yield extractor


def failure(extractor: DocumentExtractor, path: Path) -> str:
    document = extractor.extract(path)
    assert isinstance(document, FailedDocument)
    return document.reason


def works(extractor: DocumentExtractor, folder: Path) -> bool:
    document = extractor.extract(written(folder, "fine.txt", "fine"))
    return isinstance(document, ExtractedDocument) and document.text == "fine"


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
def test_truncated_pdf_is_refused_or_says_what_was_repaired(tmp_path, extractor, share):
    raw = pdf_bytes(*(f"page {n}" for n in range(5)))
    path = written(tmp_path, "cut.pdf", raw[: int(len(raw) * share)])
    document = extractor.extract(path)
    assert isinstance(document, FailedDocument) or document.notes
    assert works(extractor, tmp_path)


def test_broken_documents_of_each_kind_are_refused(tmp_path, extractor):
    whole = docx_bytes("text")
    for name in ("a.docx", "a.pptx", "a.xlsx", "a.odt", "a.epub", "a.pdf", "a.rtf", "a.ipynb"):
        for raw in (b"rubbish \xff\xfe", whole[:-100], zip_bytes({"x": "y"}), b"PK\x03\x04"):
            assert failure(extractor, written(tmp_path, name, raw))
    assert works(extractor, tmp_path)


def test_zip_bomb_as_docx_is_refused_before_the_library_opens_it(tmp_path):
    bomb = zip_bytes({"word/document.xml": b"<w>" + b" " * 40 * 2**20})
    assert "times its size" in reason_of(tmp_path, "bomb.docx", bomb)
    small = replace(LIMITS, max_unpacked_bytes=2**20)
    assert "are allowed" in reason_of(tmp_path, "bomb.docx", docx_bytes("a" * 2**21), small)
    few = replace(LIMITS, max_members=3)
    assert "members" in reason_of(tmp_path, "many.docx", docx_bytes("a"), few)


def test_archive_that_lies_about_sizes_is_refused(tmp_path):
    raw = bytearray(zip_bytes({"content.xml": b"<a>" + b"x" * 10_000}))
    place = raw.index(b"PK\x01\x02") + 24
    raw[place : place + 4] = (100).to_bytes(4, "little")
    assert "damaged" in reason_of(tmp_path, "lie.odt", bytes(raw))


@pytest.mark.parametrize("name", ["../out.xhtml", "/etc/x", "a/../../b", "C:\\x", "a\\..\\..\\b"])
def test_member_outside_its_archive_is_refused(tmp_path, name):
    raw = epub_bytes({"a.xhtml": "<body>text</body>"}, extra={name: "x"})
    assert "outside itself" in reason_of(tmp_path, "a.epub", raw)


def test_xml_entities_are_refused(tmp_path):
    bomb = '<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;">]><a>&y;</a>'
    assert "entities" in reason_of(tmp_path, "a.odt", zip_bytes({"content.xml": bomb}))
    wide = zip_bytes({"content.xml": bomb.encode("utf-16")})
    assert "entities" in reason_of(tmp_path, "b.odt", wide)


def test_encrypted_and_old_office_files_are_told_apart(tmp_path):
    compound = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100)
    locked = compound + "EncryptedPackage".encode("utf-16-le")
    reason = "encrypted: it opens only with a password"
    assert reason_of(tmp_path, "a.docx", locked) == reason
    assert "old binary Office file" in reason_of(tmp_path, "a.xlsx", compound)
    archive = bytearray(zip_bytes({"content.xml": "<a/>"}))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        archive[archive.index(mark) + offset] |= 1
    assert reason_of(tmp_path, "a.odt", bytes(archive)) == reason


def test_deep_nesting_is_refused(tmp_path, extractor):
    depth = 100_000
    files = {
        "a.odt": odt_bytes("<text:p>" * depth + "</text:p>" * depth),
        "a.ipynb": "[" * depth,
    }
    for name, raw in files.items():
        assert failure(extractor, written(tmp_path, name, raw))
    code = extractor.extract(written(tmp_path, "deep.py", "x = " + "(" * depth))
    html = extractor.extract(written(tmp_path, "deep.html", "<div>" * depth + "text"))
    assert isinstance(code, (ExtractedDocument, FailedDocument))
    assert isinstance(html, (ExtractedDocument, FailedDocument))
    assert works(extractor, tmp_path)


def test_empty_file_and_nul_bytes_and_noise(tmp_path, extractor):
    assert failure(extractor, written(tmp_path, "a.txt", b"")) == "the file is empty"
    assert failure(extractor, written(tmp_path, "a.txt", " \n\t")) == "the file holds no text"
    nul = failure(extractor, written(tmp_path, "a.txt", b"text\0text\0more text"))
    assert nul == "holds NUL bytes, the first at byte 5, so it is no text"
    assert failure(extractor, written(tmp_path, "a.md", bytes(range(256)) * 20))


def test_a_line_of_fifty_megabytes(tmp_path, extractor):
    path = written(tmp_path, "long.txt", b"word " * 10 * 2**20)
    document = extractor.extract(path)
    assert isinstance(document, ExtractedDocument)
    assert len(document.text) == 50 * 2**20


def test_text_beyond_its_limit_and_file_beyond_its_limit(tmp_path):
    assert "20" in reason_of(tmp_path, "a.txt", "x" * 30, replace(LIMITS, max_text_characters=20))
    assert "bytes" in reason_of(tmp_path, "a.txt", "x" * 30, replace(LIMITS, max_file_bytes=20))


def test_file_that_is_none(tmp_path, extractor):
    os.mkfifo(tmp_path / "pipe.txt")
    assert failure(extractor, tmp_path / "pipe.txt") == "is no regular file"
    (tmp_path / "folder.txt").mkdir()
    assert failure(extractor, tmp_path / "folder.txt")
    assert "No such file" in failure(extractor, tmp_path / "missing.txt")


def test_file_and_folder_without_permission():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        closed = written(folder, "closed.txt", "text")
        written(folder, "locked/a.txt", "text")
        closed.chmod(0)
        (folder / "locked").chmod(0)
        with nobody():
            with pytest.raises(DocumentRefused, match="can't be opened: Permission denied"):
                read_bytes(closed, 100)
            found = list(find_files([folder]))
        assert [(type(one), one.name.partition("/")[2]) for one in found] == [
            (FoundFile, "closed.txt"),
            (SkippedFile, "locked"),
        ]
        assert found[1].reason == "can't be listed: Permission denied"
        (folder / "locked").chmod(0o700)


@contextmanager
def nobody():
    """Act as a user without rights, because root may read everything."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_worker_killed_in_the_middle_costs_one_file(tmp_path):
    path = written(tmp_path, "a.txt", "text")
    with DocumentExtractor() as extractor:
        pid = extractor.worker_pid
        # Stopped, it is surely in the middle when it is killed.
        os.kill(pid, signal.SIGSTOP)
        threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
        assert "SIGKILL" in failure(extractor, path)
        assert works(extractor, tmp_path)
        assert extractor.worker_pid != pid


def test_time_limit_costs_one_file(tmp_path):
    slow = written(tmp_path, "slow.html", "<p>" + "<div><b>some words</b></div>" * 400_000)
    with DocumentExtractor(replace(LIMITS, seconds_a_file=1.0)) as extractor:
        assert extractor.worker_pid
        started = time.monotonic()
        assert "took longer than 1 s" in failure(extractor, slow)
        assert time.monotonic() - started < 5
        assert works(extractor, tmp_path)


def test_memory_limit_costs_one_file(tmp_path):
    large = written(tmp_path, "large.txt", b"a" * 150 * 2**20)
    with DocumentExtractor(replace(LIMITS, memory_bytes=300 * 2**20)) as extractor:
        assert works(extractor, tmp_path)
        assert failure(extractor, large)
        assert works(extractor, tmp_path)


def test_worker_can_start_no_program_and_open_no_connection():
    script = (
        "import sys, socket, subprocess\n"
        "from swiftcore.data.documents.worker import _refuse\n"
        "sys.addaudithook(_refuse)\n"
        "for act in (lambda: subprocess.run(['true']),"
        " lambda: socket.create_connection(('127.0.0.1', 9))):\n"
        "    try:\n        act()\n"
        "    except PermissionError as err:\n        print(err)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert done.stdout.count("a document made its reader try") == 2


def test_worker_ends_with_its_parent(tmp_path):
    script = (
        "import sys, time\n"
        "from swiftcore.data.documents import DocumentExtractor\n"
        "print(DocumentExtractor().worker_pid, flush=True)\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], cwd=REPO, stdout=subprocess.PIPE, text=True
    )
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{worker}/exe").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{worker}/exe").exists()
