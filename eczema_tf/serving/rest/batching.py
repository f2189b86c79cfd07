"""Micro-batching: rows of requests that arrive at the same time are answered together.

No clock is involved: while the model works on one batch, the next one gathers. A lone request
therefore never waits, and many requests form large batches by themselves (the literature calls this
adaptive or continuous batching: Crankshaw et al. 2017, Clipper, section 4.3).
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from itertools import accumulate, pairwise
from typing import NamedTuple, Self

from eczema_tf.errors import EczemaError
from eczema_tf.serving.cases import Outputs
from eczema_tf.serving.graph.signature import SIGNATURES
from eczema_tf.serving.rest.contract import ModelFault
from eczema_tf.serving.rest.limits import STOPPING, Limits
from eczema_tf.serving.rest.metrics import Metrics

# images, texts, signature, clinical fields, whether the answer is still wanted
Run = Callable[[Sequence[bytes], Sequence[str], str, Sequence[str], Callable[[], bool]], Outputs]

_log = logging.getLogger(__name__)


class Busy(EczemaError):
    """More rows are waiting than the server accepts; try again later."""


class _Request(NamedTuple):
    images: Sequence[bytes]
    texts: Sequence[str]
    clinical: Sequence[str]
    answer: asyncio.Future[Outputs]


class Batcher:
    """Runs requests through a model, several at once, between entering and leaving its context.

    A batch that nobody is waiting for ends after the current step. Every signature has its own
    queue, its own task and a thread for its batches, so an explanation does not hold up a
    prediction.
    """

    def __init__(
        self, run: Run, limits: Limits, metrics: Metrics, signatures: Sequence[str] = SIGNATURES
    ):
        """Creates a batcher for a model.

        Args:
            run: `ExportedModel.run`, or a function like it; called in at most one thread per
                signature.
            limits: `batch_rows` and `max_waiting_rows`.
            metrics: Where batches are counted.
            signatures: Of the model.
        """
        self._run = run
        self._limits = limits
        self._metrics = metrics
        self._queues: dict[str, asyncio.Queue[_Request]] = {
            signature: asyncio.Queue() for signature in signatures
        }
        self._tasks: list[asyncio.Task[None]] = []
        self._batches: dict[str, Future[Sequence[Outputs | EczemaError]]] = {}  # the latest of each
        self._waiting_rows = 0

    @property
    def is_running(self) -> bool:
        """Whether requests are answered."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    @property
    def is_at_work(self) -> bool:
        """Whether a batch is running, even after a stop: nothing can interrupt its current step."""
        return any(batch.running() for batch in self._batches.values())

    async def __aenter__(self) -> Self:
        """Starts the threads and tasks."""
        self._threads = ThreadPoolExecutor(len(self._queues), thread_name_prefix="model")
        self._tasks = [asyncio.create_task(self._work(signature)) for signature in self._queues]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stops; requests that still wait, including those in the current batch, get `Busy`."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for queue in self._queues.values():
            while not queue.empty():
                _settle(queue.get_nowait(), Busy(STOPPING))
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def ask(
        self,
        images: Sequence[bytes],
        texts: Sequence[str],
        signature: str,
        clinical: Sequence[str] = (),
    ) -> Outputs:
        """Waits for the answer to some rows.

        Args:
            images: One for each row, b"" for none.
            texts: As many; "" for none.
            signature: Which one to run.
            clinical: As many, if the signature takes them.

        Returns:
            The signature's outputs for these rows, in their order.

        Raises:
            Busy: If too many rows are waiting already, or the server is stopping.
            ModelFault: If the model failed on these rows.
        """
        if not self.is_running:
            raise Busy(STOPPING)
        if self._waiting_rows + len(images) > self._limits.max_waiting_rows:
            raise Busy(f"{self._waiting_rows} rows are waiting; try again in a second")
        request = _Request(images, texts, clinical, asyncio.get_running_loop().create_future())
        self._count_waiting(len(images))
        self._queues[signature].put_nowait(request)
        # if the caller is cancelled, so is the future, and `_work` skips the request
        return await request.answer

    def _count_waiting(self, rows: int) -> None:
        self._waiting_rows += rows
        self._metrics.waiting_rows.set(self._waiting_rows)

    async def _work(self, signature: str) -> None:
        """Answers a signature's requests forever, one batch after another."""
        queue = self._queues[signature]
        while True:
            # all that wait, at least one; requests stay whole, so the last may exceed `batch_rows`
            batch: list[_Request] = []
            rows = 0
            while not batch or (rows < self._limits.batch_rows and not queue.empty()):
                request = await queue.get()
                self._count_waiting(-len(request.images))
                if not request.answer.done():  # otherwise it was cancelled
                    batch.append(request)
                    rows += len(request.images)
            self._metrics.batch_rows.labels(signature).observe(rows)
            # the answers if the server stops in the meantime, which cancels this task
            answers: Sequence[Outputs | EczemaError] = [Busy(STOPPING) for _ in batch]
            try:
                with self._metrics.batch_seconds.labels(signature).time():
                    running = self._threads.submit(self._answer, batch, signature)
                    self._batches[signature] = running
                    answers = await asyncio.wrap_future(running)
            finally:
                for request, answer in zip(batch, answers, strict=True):
                    _settle(request, answer)

    def _answer(self, batch: Sequence[_Request], signature: str) -> Sequence[Outputs | EczemaError]:
        """Runs a batch in a thread.

        If it fails, each request is run alone, so that only those at fault fail.
        """
        images = [image for request in batch for image in request.images]
        texts = [text for request in batch for text in request.texts]
        told = [line for request in batch for line in request.clinical]

        def is_wanted() -> bool:
            return not all(request.answer.done() for request in batch)

        try:
            outputs = self._run(images, texts, signature, told, is_wanted)
            if any(len(values) != len(images) for values in outputs.values()):
                raise ModelFault("the model did not return one row for each row asked about")
        except CancelledError:
            return [Busy("nobody is waiting for the answer") for _ in batch]
        except Exception as error:  # whatever the model raises must reach the callers
            if len(batch) > 1:
                return [answer for one in batch for answer in self._answer([one], signature)]
            # only its type, since the message may contain what was asked
            _log.error("the model failed on a request: %s", type(error).__name__)
            return [ModelFault("the model failed on this request")]
        ends = [0, *accumulate(len(request.images) for request in batch)]
        return [
            {name: values[start:end] for name, values in outputs.items()}
            for start, end in pairwise(ends)
        ]


def _settle(request: _Request, answer: Outputs | EczemaError) -> None:
    with contextlib.suppress(asyncio.InvalidStateError):  # cancelled in the meantime
        if isinstance(answer, EczemaError):
            request.answer.set_exception(answer)
        else:
            request.answer.set_result(answer)
