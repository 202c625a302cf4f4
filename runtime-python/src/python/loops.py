"""The event loop of an extension. Its coroutines run there together, each as a task of one call, and
wait for the host without holding up each other.
"""

import asyncio
import contextvars
import inspect
import threading

_call = contextvars.ContextVar("quadriga.call", default=None)


def current():
    """The call whose task, or thread that has its context, is running."""
    return _call.get()


class Loop:
    """An event loop on a thread of its own."""

    def __init__(self, name):
        self._loop = asyncio.new_event_loop()
        self._over = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self):
        asyncio.set_event_loop(self._loop)
        while not self._over:
            try:
                self._loop.run_forever()
            except BaseException:
                # SystemExit, which a task passes on after it has kept it: for the others the loop
                # goes on.
                continue
        self._loop.close()

    def submit(self, call, function, arguments, emit, done):
        """Begins a call. `done` gets its result and its exception, one of them None."""
        self._loop.call_soon_threadsafe(self._begin, call, function, arguments, emit, done)

    def _begin(self, call, function, arguments, emit, done):
        task = self._loop.create_task(_serve(call, function, arguments, emit))
        if not call.enter(self._loop, task):
            task.cancel()
        task.add_done_callback(lambda task: done(*_outcome(task)))

    def close(self, patience):
        """Cancels what is left and ends the thread, if it can be ended."""
        try:
            self._loop.call_soon_threadsafe(self._stop)
        except RuntimeError:
            return
        self._thread.join(patience)

    def _stop(self):
        self._over = True
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        # After the tasks have seen it.
        self._loop.call_soon(lambda: self._loop.call_soon(self._loop.stop))


async def _serve(call, function, arguments, emit):
    _call.set(call)
    try:
        result = function(*arguments)
        if inspect.isasyncgen(result):
            return await _drain(result, emit)
        return await result
    finally:
        # An exception of the host, which means this call alone, must not come after this.
        call.leave()


async def _drain(generator, emit):
    try:
        async for item in generator:
            if emit is None:
                raise TypeError("an async generator where a value was expected")
            waiting = emit.later(item)
            if waiting is not None:
                await waiting
    finally:
        await generator.aclose()


def _outcome(task):
    if task.cancelled():
        return None, asyncio.CancelledError()
    error = task.exception()
    return (None, error) if error is not None else (task.result(), None)


def cancel(loop, task):
    """Cancels a task from another thread. Tells whether it is the one that runs at this moment; None
    where the loop is closed, so that it never runs again."""
    try:
        loop.call_soon_threadsafe(task.cancel)
    except RuntimeError:
        return None
    return asyncio.current_task(loop) is task


def is_current(loop, task):
    """Whether a task is the one that its loop runs at this moment, as another thread sees it."""
    return asyncio.current_task(loop) is task


async def wait(begin):
    """Waits for what the host settles. Given up with the task that waits."""
    waiter = asyncio.get_running_loop().create_future()
    abort = begin(waiter)
    try:
        return await waiter
    finally:
        abort()


async def next_of(begin):
    """The same for an item of a stream, in a tuple; None stands for its end."""
    item = await wait(begin)
    if item is None:
        raise StopAsyncIteration
    return item[0]


async def feed(channel, items):
    """Sends the items of an iterator, async or not, and returns the result of the call."""
    asynchronous = hasattr(items, "__anext__")
    try:
        if asynchronous:
            async for item in items:
                if not await channel.send(item):
                    break
        else:
            for item in items:
                if not await channel.send(item):
                    break
        channel.finish()
        return await channel.result()
    finally:
        if asynchronous and hasattr(items, "aclose"):
            await items.aclose()
        elif not asynchronous and hasattr(items, "close"):
            items.close()


def settle(waiter, value, error):
    """Ends the wait, on the loop's own thread."""
    if waiter.done():
        return
    if error is None:
        waiter.set_result(value)
    else:
        waiter.set_exception(error)
