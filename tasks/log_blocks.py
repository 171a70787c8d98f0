"""Shows an error that a person can mend as one block in Prefect's logs, without a traceback."""

import logging

from swiftcore.errors import SwiftError

_LOGGERS = ("prefect.flow_runs", "prefect.task_runs")


class OneBlock(logging.Filter):
    """Replaces the traceback of a SwiftError by its block, and the repeats of it by one line."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record in place; every record is kept."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, SwiftError):
            record.msg, record.args = f"{error.title}: {error}", ()
            record.exc_info = None
            record.exc_text = None
            return True
        text = record.getMessage()
        if text.startswith("Finished in state Failed"):
            # The state's message holds the whole block, with its line ends escaped.
            record.msg, record.args = text.partition("\\n")[0], ()
        return True


def show_errors_as_blocks() -> None:
    """Install the filter on the loggers of runs, once."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(known, OneBlock) for known in logger.filters):
            logger.addFilter(OneBlock())
