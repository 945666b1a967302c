"""Work done ahead by threads, while the model computes."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


def chunks_ahead(
    pool: ThreadPoolExecutor, chunks: Iterable[list[T]], work: Callable[[T], list[U]], n_ahead: int
) -> Iterator[list[U]]:
    """Yield chunks of what `work` makes of each item, in order; up to `n_ahead` chunks are worked on beforehand.

    Items are taken by a thread of their own: while a pipe has no next one, those that came are yielded.
    """
    waiting: queue.Queue[list[Future[list[U]]] | Exception | None] = queue.Queue(n_ahead)
    is_over = threading.Event()

    def put(item: list[Future[list[U]]] | Exception | None) -> None:
        while not is_over.is_set():
            with suppress(queue.Full):
                waiting.put(item, timeout=0.2)
                return

    def feed() -> None:
        try:
            for chunk in chunks:
                put([pool.submit(work, item) for item in chunk])
                if is_over.is_set():
                    return
            put(None)
        except Exception as error:  # handed to who waits for it
            put(error)

    threading.Thread(target=feed, name="names", daemon=True).start()  # a pipe may never end
    try:
        while (item := waiting.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield [made for future in item for made in future.result()]
    finally:
        is_over.set()
        pool.shutdown(wait=False, cancel_futures=True)


def next_ahead(pool: ThreadPoolExecutor, items: Iterator[T]) -> Iterator[T]:
    """Yield the same items, the next one made while this one is used."""
    coming = pool.submit(next, items, None)
    while (item := coming.result()) is not None:
        coming = pool.submit(next, items, None)
        yield item
