"""Many concurrent requests, one model: a worker thread that decodes them as one batch.

Requests join a running batch at the next step and leave it when they end, so a short answer does
not wait for a long one. After an idle time the worker waits a few milliseconds for company, because
prefilling together is cheaper.
"""

import logging
import queue
import threading
import time
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedTokenizerBase

from swiftcore.errors import SwiftError
from swiftcore.generation.answer import Request
from swiftcore.generation.decoding import Decoder
from swiftcore.generation.engine import TransformersEngine
from swiftcore.generation.params import Delta, SamplingParams
from swiftcore.generation.protocol import Listener, Load

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Ticket:
    """A request that was handed in; `cancel` frees its place."""

    request: Request
    listener: Listener
    cancelled: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """Stop generating at the next step; the listener hears nothing more."""
        self.cancelled.set()


class Batcher:
    """Serves requests from any thread with one engine.

    Listeners are called from the worker thread and must return at once.

    Args:
        engine: the model; nobody else may use it meanwhile.
        max_batch_size: most requests generated together; the others wait in order.
        window_seconds: how long an idle worker waits for more requests after the first.
    """

    def __init__(
        self, engine: TransformersEngine, *, max_batch_size: int = 8, window_seconds: float = 0.004
    ) -> None:
        self.engine = engine
        self._max_batch_size = max_batch_size
        self._window_seconds = window_seconds
        self._arrivals: queue.SimpleQueue[Ticket | None] = queue.SimpleQueue()
        self._waiting: list[Ticket] = []
        self._running: dict[int, Ticket] = {}
        self._closed = False
        self._num_prompt_tokens = self._num_answer_tokens = 0
        self.largest_batch = 0
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""
        return self.engine.tokenizer

    @property
    def max_model_len(self) -> int:
        """Most tokens of prompt and answer together."""
        return self.engine.max_model_len

    @property
    def vocab_size(self) -> int:
        """How many token ids the model has."""
        return self.engine.vocab_size

    @property
    def alive(self) -> bool:
        """Tell whether the worker thread is there."""
        return self._thread.is_alive()

    @property
    def num_requests(self) -> int:
        """Requests that are being answered or wait for a place."""
        return len(self._running) + self._num_waiting

    @property
    def load(self) -> Load:
        """What was done since the start, and what is to be done."""
        return Load(
            self._num_prompt_tokens,
            self._num_answer_tokens,
            len(self._running),
            self._num_waiting,
        )

    @property
    def _num_waiting(self) -> int:
        return len(self._waiting) + self._arrivals.qsize()

    def why_not(self, params: SamplingParams) -> str | None:
        """Return None: every setting is of this engine."""
        return None

    def submit(
        self,
        prompt: list[int],
        params: SamplingParams,
        listener: Listener,
        *,
        index: int = 0,
        streamed: bool = True,
    ) -> Ticket:
        """Queue a prompt; the listener gets each `Delta`, or the exception that ended the request.

        Raises:
            UsageError: the prompt can't be answered.
        """
        self.engine.check_prompt(prompt, where="prompt")
        request = self.engine.request(prompt, params, index=index, streamed=streamed)
        ticket = Ticket(request, listener)
        self._arrivals.put(ticket)
        return ticket

    def close(self, timeout_seconds: float = 10.0) -> None:
        """Stop the worker; requests that are not finished hear an error."""
        self._arrivals.put(None)
        self._thread.join(timeout_seconds)

    def _work(self) -> None:
        decoder = self.engine.decoder()
        with torch.inference_mode():
            while not self._closed:
                self._collect(idle=not len(decoder) and not self._waiting)
                try:
                    self._turn(decoder)
                except Exception as error:
                    logger.exception("generation failed; %d requests end", len(self._running))
                    self._fail(error)
                    decoder = self.engine.decoder()
        self._fail(SwiftError("the server is stopping"))

    def _turn(self, decoder: Decoder) -> None:
        self._drop_cancelled(decoder)
        free = self._max_batch_size - len(decoder)
        if self._waiting and free > 0 and decoder.can_admit:
            group, self._waiting = self._waiting[:free], self._waiting[free:]
            group.sort(key=lambda ticket: len(ticket.request.prompt))  # less padding
            self._running.update({id(ticket.request): ticket for ticket in group})
            self._num_prompt_tokens += sum(len(ticket.request.prompt) for ticket in group)
            self._num_answer_tokens += len(group)
            self._deliver(decoder.admit([ticket.request for ticket in group]))
            self.largest_batch = max(self.largest_batch, len(self._running))
        elif len(decoder):
            self._num_answer_tokens += len(self._running)
            self._deliver(decoder.step())

    def _collect(self, *, idle: bool) -> None:
        """Move arrivals to the waiting list; block only when there is nothing else to do."""
        deadline = None
        while True:
            try:
                if not idle:
                    arrival = self._arrivals.get_nowait()
                elif deadline is None:
                    arrival = self._arrivals.get()
                    deadline = time.monotonic() + self._window_seconds
                else:
                    arrival = self._arrivals.get(timeout=max(deadline - time.monotonic(), 1e-4))
            except queue.Empty:
                return
            if arrival is None:
                self._closed = True
                return
            self._waiting.append(arrival)
            if len(self._waiting) >= self._max_batch_size:
                return

    def _drop_cancelled(self, decoder: Decoder) -> None:
        self._waiting = [ticket for ticket in self._waiting if not ticket.cancelled.is_set()]
        gone = {key for key, ticket in self._running.items() if ticket.cancelled.is_set()}
        if gone:
            decoder.drop(lambda request: id(request) in gone)
            for key in gone:
                del self._running[key]

    def _deliver(self, deltas: list[tuple[Request, Delta]]) -> None:
        for request, delta in deltas:
            ticket = self._running.get(id(request))
            if ticket is None:
                continue
            if delta.completion:
                del self._running[id(request)]
            if not ticket.cancelled.is_set():
                ticket.listener(delta)

    def _fail(self, error: Exception) -> None:
        tickets = [*self._running.values()]
        self._running = {}
        if self._closed:
            tickets += self._waiting
            self._waiting = []
        for ticket in tickets:
            ticket.listener(error)
