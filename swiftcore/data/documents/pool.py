"""Several extractors at once, with their documents in the order of the files."""

import os
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from swiftcore.data.documents.extractor import DocumentExtractor
from swiftcore.data.documents.outcomes import (
    ExtractedDocument,
    ExtractionLimits,
    FailedDocument,
)

Extraction = ExtractedDocument | FailedDocument

_MOST_BY_DEFAULT = 4


def default_workers() -> int:
    """Return how many documents are read at once: the processors at hand, four at most."""
    has_affinity = hasattr(os, "sched_getaffinity")
    num_processors = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return min(num_processors, _MOST_BY_DEFAULT)


def extract_in_order(
    paths: Iterable[Path], limits: ExtractionLimits, num_workers: int
) -> Generator[Extraction, None, None]:
    """Yield what came of each document, in order, reading a few of them ahead.

    Args:
        paths: the documents.
        limits: what one of them may cost.
        num_workers: processes that read; the outcome is the same for any number.
    """
    free: SimpleQueue[DocumentExtractor] = SimpleQueue()
    extractors = [DocumentExtractor(limits) for _ in range(num_workers)]
    for extractor in extractors:
        free.put(extractor)

    def extract(path: Path) -> Extraction:
        extractor = free.get()
        try:
            return extractor.extract(path)
        finally:
            free.put(extractor)

    # Workers end with the thread that started them, and these threads live as long as the pool.
    threads = ThreadPoolExecutor(num_workers, thread_name_prefix="documents")
    waiting: deque[Future[Extraction]] = deque()
    try:
        for path in paths:
            waiting.append(threads.submit(extract, path))
            if len(waiting) > num_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        for extractor in extractors:
            extractor.interrupt()
        threads.shutdown()
        for extractor in extractors:
            extractor.close()
