"""What the cases need: workers of the installed iii-sdk, a plain subscriber, recorded calls, and the driver's server."""

import itertools
import json
import os
import queue
import sys
import uuid
from importlib.metadata import version

from iii import InitOptions, TriggerAction, register_worker
from iii.iii_constants import ReconnectionConfig
from websockets.sync.client import connect

try:
    from iii_helpers.stream import StreamChangeEvent, StreamJoinLeaveEvent
except ModuleNotFoundError:  # 0.11 has them in the SDK itself
    from iii.stream import StreamChangeEvent, StreamJoinLeaveEvent

__all__ = [
    "OLD", "VOID", "WAIT_S", "Calls", "StreamChangeEvent", "StreamJoinLeaveEvent", "Subscriber", "Worker", "restart_server", "unique",
]

VERSION = version("iii-sdk")
# 0.11 reads at most 1 MiB per message (its WebSocket library's default) and knows no call metadata.
OLD = VERSION.startswith("0.11.")
WAIT_S = 15
VOID = TriggerAction.Void()

_numbers = itertools.count(1)


def unique(prefix):
    """A name no other case uses, also when both versions run against one server."""
    return f"{prefix}-{os.getpid()}-{next(_numbers)}"


class Calls:
    """Calls of a handler, in order; whoever waits for one waits with a limit."""

    def __init__(self):
        self._queue = queue.SimpleQueue()
        self.seen = []

    def push(self, item):
        self._queue.put(item)

    def count(self, n):
        """The first `n` calls, waiting for those that are missing."""
        while len(self.seen) < n:
            try:
                self.seen.append(self._queue.get(timeout=WAIT_S))
            except queue.Empty:
                raise AssertionError(f"waited {WAIT_S} s for call {len(self.seen) + 1} of {n}; have {str(self.seen)[:1500]}") from None
        return self.seen[:n]

    def until(self, matches):
        """All calls up to the first that matches."""
        n = 0
        while True:
            n += 1
            if matches(self.count(n)[-1]):
                return self.seen[:n]

    def all(self):
        """What has come so far; for a moment that is known to be after what should not have come."""
        while not self._queue.empty():
            self.seen.append(self._queue.get())
        return self.seen


class Worker:
    """A connected worker of the SDK, with short names for what the cases do all the time."""

    def __init__(self):
        self.sdk = register_worker(
            os.environ["III_WORKERS_URL"],
            InitOptions(
                otel={"enabled": False},
                enable_metrics_reporting=False,
                invocation_timeout_ms=WAIT_S * 1000,
                reconnection_config=ReconnectionConfig(initial_delay_ms=50, max_delay_ms=200, jitter_factor=0.0),
            ),
        )

    def call(self, function_id, payload, **more):
        return self.sdk.trigger({"function_id": function_id, "payload": payload, **more})

    def stream(self, verb, **payload):
        return self.call(f"stream::{verb}", payload)

    def error(self, function_id, payload):
        """The code and message of a call that must fail."""
        try:
            result = self.call(function_id, payload)
        except Exception as error:
            return error.code, error.message
        raise AssertionError(f"{function_id} should have failed, but gave {result!r}")

    def settled(self):
        """Returns when the server has read all that was sent before: one connection is read in order."""
        self.call("stream::list_all", {})

    def serve(self, handler, prefix="fn"):
        function_id = unique(prefix)
        self.sdk.register_function(function_id, handler)
        return function_id

    def bind(self, kind, config, handler=lambda data: {}):
        """A recording handler bound by a trigger; the calls, with `trigger` to unregister."""
        calls = Calls()

        def record(data):
            calls.push(data)
            return handler(data)

        function_id = self.serve(record, f"on::{kind}")
        calls.trigger = self.sdk.register_trigger({"type": kind, "function_id": function_id, "config": config})
        self.settled()
        return calls

    def close(self):
        self.sdk.shutdown()


class Subscriber:
    """A plain subscriber connection: there is no Python stream client."""

    def __init__(self):
        self.socket = connect(os.environ["III_SUBSCRIBERS_URL"], max_size=None)

    def next(self):
        return json.loads(self.socket.recv(timeout=WAIT_S))

    def join(self, stream, group, item=None, subscription_id=None):
        """The type of the frame that answers the join."""
        data = {"subscriptionId": subscription_id or str(uuid.uuid4()), "streamName": stream, "groupId": group}
        self.socket.send(json.dumps({"type": "join", "data": data if item is None else {**data, "id": item}}))
        while True:
            frame = self.next()
            if frame["groupId"] == group and frame["event"]["type"] in ("sync", "unauthorized"):
                return frame["event"]["type"]

    def close(self):
        self.socket.close()


def restart_server():
    """Asks the driver to end the server and to start it again on the same ports; returns when it listens."""
    print(json.dumps({"ask": "restart"}), flush=True)
    answer = sys.stdin.readline()
    if answer != "restarted\n":
        raise AssertionError(f"the driver did not restart the server: {answer!r}")
