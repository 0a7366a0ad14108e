"""The checklist of a Python worker SDK: what each installed version must be able to do with the server."""

import threading
import unittest
import uuid

from harness import OLD, VOID, WAIT_S, Calls, StreamChangeEvent, StreamJoinLeaveEvent, Subscriber, Worker, restart_server, unique

ODD_NAMES = ["a:b", "a", "b:c", "a/b", "..", ".", "../../etc/passwd", " ", "a b", "🦀", "é", "e\u0301", "stream::set(x)", "%2F", '"', "\\", "{}", "\u0000"]


def fail(_):
    raise ValueError("no é 🦀")


class Checklist(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.worker = Worker()

    @classmethod
    def tearDownClass(cls):
        cls.worker.close()

    def another(self):
        worker = Worker()
        self.addCleanup(worker.close)
        return worker

    def subscriber(self):
        subscriber = Subscriber()
        self.addCleanup(subscriber.close)
        return subscriber

    def set(self, stream, group, item, data):
        return self.worker.stream("set", stream_name=stream, group_id=group, item_id=item, data=data)

    def get(self, stream, group, item):
        return self.worker.stream("get", stream_name=stream, group_id=group, item_id=item)

    def test_all_eight_functions(self):
        stream = unique("eight")
        at = {"stream_name": stream, "group_id": "g", "item_id": "i"}
        call = self.worker.stream
        subscriber = self.subscriber()
        self.assertEqual(subscriber.join(stream, "g"), "sync")
        self.assertIsNone(call("get", **at))
        self.assertEqual(call("set", **at, data={"id": "i", "n": 1}), {"old_value": None, "new_value": {"id": "i", "n": 1}})
        self.assertEqual(call("set", **at, data={"id": "i", "n": 2}), {"old_value": {"id": "i", "n": 1}, "new_value": {"id": "i", "n": 2}})
        ops = [{"type": "increment", "path": "n", "by": 5}, {"type": "set", "path": "new", "value": [1]}]
        self.assertEqual(call("update", **at, ops=ops), {"old_value": {"id": "i", "n": 2}, "new_value": {"id": "i", "n": 7, "new": [1]}})
        self.assertEqual(call("get", **at), {"id": "i", "n": 7, "new": [1]})
        self.assertEqual(call("set", **{**at, "item_id": "j"}, data=None), {"old_value": None, "new_value": None})
        self.assertEqual(call("list", stream_name=stream, group_id="g"), [{"id": "i", "n": 7, "new": [1]}, None])
        self.assertEqual(call("list", stream_name=stream, group_id="none"), [])
        self.set(stream, "h", "k", 2**63)
        self.assertEqual(self.get(stream, "h", "k"), 2**63)
        self.assertEqual(sorted(call("list_groups", stream_name=stream)), ["g", "h"])
        everything = call("list_all")
        self.assertIn({"id": stream, "groups": ["g", "h"]}, everything["stream"])
        self.assertEqual(everything["count"], len(everything["stream"]))
        self.assertIsNone(call("send", stream_name=stream, group_id="g", type="typing", data={"u": 1}))
        self.assertIsNone(call("send", stream_name=stream, group_id="g", id="i", type="typing", data={"u": 2}))
        self.assertEqual(call("delete", **at), {"old_value": {"id": "i", "n": 7, "new": [1]}})
        self.assertEqual(call("delete", **at), {"old_value": None})
        frames = [subscriber.next() for _ in range(7)]
        self.assertEqual([(frame["id"], frame["event"]["type"]) for frame in frames], [
            ("i", "create"), ("i", "update"), ("i", "update"), ("j", "create"), (None, "event"), ("i", "event"), ("i", "delete")])
        self.assertEqual(frames[4]["event"]["event"], {"type": "typing", "data": {"u": 1}})
        self.assertEqual(frames[6]["event"]["data"], {"id": "i", "n": 7, "new": [1]})

    def test_what_a_builtin_refuses_has_its_code(self):
        at = {"stream_name": unique("refused"), "group_id": "g", "item_id": "i"}
        for verb, payload in [("set", at), ("get", {"stream_name": "x"}), ("get", 7), ("get", None), ("update", {**at, "ops": [{"type": "nonsense"}]})]:
            self.assertEqual(self.worker.error(f"stream::{verb}", payload)[0], "deserialization_error", (verb, payload))
        ops = [{"type": "set", "path": "n", "value": 1}, {"type": "append", "path": "n", "value": 1}]
        errors = self.worker.stream("update", **at, ops=ops)["errors"]
        self.assertEqual([(error["op_index"], error["code"]) for error in errors], [(1, "append.type_mismatch")])

    def test_stream_triggers_filter(self):
        stream = unique("filtered")
        filters = [{}, {"group_id": "a"}, {"group_id": "a", "item_id": "1"}, {"item_id": "1"}, {"group_id": "", "item_id": None}]
        bound = [self.worker.bind("stream", {"stream_name": stream, **more}) for more in filters]
        elsewhere = self.worker.bind("stream", {"stream_name": f"{stream}x"})
        for group, item in [("a", "1"), ("a", "2"), ("b", "1"), ("A", "1"), ("a", "11")]:
            self.set(stream, group, item, {"id": item})
        # The last write, which all of them see, comes after what they must not see: one trigger's calls keep their order.
        self.set(stream, "a", "1", {"id": "1", "last": True})
        self.set(f"{stream}x", "a", "1", 1)
        every = ["A/1", "a/1", "a/1", "a/11", "a/2", "b/1"]
        expected = [every, ["a/1", "a/1", "a/11", "a/2"], ["a/1", "a/1"], ["A/1", "a/1", "a/1", "b/1"], every]
        for calls, more, places in zip(bound, filters, expected):
            inputs = calls.until(lambda data: data["event"]["data"].get("last"))
            self.assertEqual(sorted(f"{data['groupId']}/{data['id']}" for data in inputs), places, more)
        self.assertEqual([data["id"] for data in elsewhere.count(1)], ["1"])
        first = bound[0].seen[0]
        self.assertIsInstance(first.pop("timestamp"), int)
        self.assertEqual(first, {"type": "stream", "streamName": stream, "groupId": "a", "id": "1", "event": {"type": "create", "data": {"id": "1"}}})

    def test_events_fit_the_typed_input_until_unregistered(self):
        stream = unique("events")
        calls, witness = [self.worker.bind("stream", {"stream_name": stream}) for _ in range(2)]
        self.set(stream, "g", "i", {"n": 1})
        self.set(stream, "g", "i", {"n": 2})
        self.worker.stream("delete", stream_name=stream, group_id="g", item_id="i")
        events = [StreamChangeEvent(**data).event for data in calls.count(3)]
        self.assertEqual([(event.type, event.data) for event in events], [("create", {"n": 1}), ("update", {"n": 2}), ("delete", {"n": 2})])
        calls.trigger.unregister()
        self.worker.settled()
        self.set(stream, "g", "i", {"n": 3})
        witness.count(4)
        self.worker.settled()
        self.assertEqual(len(calls.all()), 3)

    def test_every_result_of_a_condition(self):
        outcomes = [
            (lambda _: False, False), (lambda _: True, True), (lambda _: None, True), (lambda _: 0, True), (lambda _: "", True),
            (lambda _: "false", True), (lambda _: {"allowed": False}, True), (lambda _: [], True), (fail, False),
        ]
        for number, (answer, runs) in enumerate(outcomes):
            with self.subTest(outcome=number):
                stream = unique("conditional")
                condition = self.worker.serve(lambda data, answer=answer: True if data["id"] == "marker" else answer(data), "condition")
                calls = self.worker.bind("stream", {"stream_name": stream, "condition_function_id": condition})
                self.set(stream, "g", "i", 1)
                self.set(stream, "g", "marker", 1)
                ids = [data["id"] for data in calls.until(lambda data: data["id"] == "marker")]
                self.assertEqual(ids, ["i", "marker"] if runs else ["marker"])

    def test_a_condition_that_is_missing_skips(self):
        stream = unique("unconditional")
        skipped = [self.worker.bind("stream", {"stream_name": stream, "condition_function_id": missing}) for missing in (unique("no::such"), "")]
        witness = self.worker.bind("stream", {"stream_name": stream})
        for item in "abc":
            self.set(stream, "g", item, 1)
        witness.count(3)
        self.worker.settled()
        self.assertEqual([calls.all() for calls in skipped], [[], []])

    def test_join_and_leave(self):
        stream = unique("guarded")
        joins = self.worker.bind("stream:join", {"stream_name": stream}, lambda data: {"unauthorized": data["group_id"] == "secret"})
        leaves = self.worker.bind("stream:leave", {"stream_name": stream})
        subscriber = self.subscriber()
        subscription = str(uuid.uuid4())
        self.assertEqual(subscriber.join(stream, "open", None, subscription), "sync")
        self.assertEqual(subscriber.join(stream, "secret", "i"), "unauthorized")
        self.set(stream, "secret", "i", 1)
        self.set(stream, "open", "i", 1)
        self.assertEqual(subscriber.next()["groupId"], "open", "nothing of the refused group")
        subscriber.close()
        expected = {"subscription_id": subscription, "stream_name": stream, "group_id": "open", "id": None, "context": None}
        self.assertEqual(leaves.count(1), [expected])
        self.assertEqual(joins.count(2)[0], expected)
        typed = StreamJoinLeaveEvent(**joins.seen[1])
        self.assertEqual((typed.group_id, typed.id, typed.context), ("secret", "i", None))

    def test_join_triggers_filter(self):
        stream = unique("guarded")
        deny = lambda data: {"unauthorized": True}
        elsewhere = self.worker.bind("stream:join", {"stream_name": f"{stream}-other"}, deny)
        condition = self.worker.serve(lambda data: data["group_id"] == "asked", "condition")
        conditional = self.worker.bind("stream:join", {"stream_name": stream, "condition_function_id": condition}, deny)
        subscriber = self.subscriber()
        self.assertEqual(subscriber.join(stream, "free"), "sync")
        self.assertEqual(subscriber.join(stream, "asked"), "unauthorized")
        self.assertEqual([data["group_id"] for data in conditional.all()], ["asked"])
        self.assertEqual(elsewhere.all(), [])
        conditional.trigger.unregister()
        self.worker.settled()
        self.assertEqual(subscriber.join(stream, "asked"), "sync")

    def test_two_workers_call_each_other(self):
        other = self.another()
        ping, pong = unique("ping"), unique("pong")

        async def on_ping(data):
            if data["n"] == 0:
                return [ping]
            return [ping, *await self.worker.sdk.trigger_async({"function_id": pong, "payload": {"n": data["n"] - 1}})]

        # One handler is a coroutine, the other a plain function that calls from its own thread.
        def on_pong(data):
            return [pong, *other.call(ping, {"n": data["n"]})]

        self.worker.sdk.register_function(ping, on_ping)
        other.sdk.register_function(pong, on_pong)
        self.worker.settled()
        other.settled()
        self.assertEqual(other.call(ping, {"n": 2}), [ping, pong, ping, pong, ping])

    def test_a_node_worker_calls_back(self):
        """The driver's `node::relay` is a worker of the Node SDK: it calls the function it is told and returns its answer."""
        seen = Calls()

        def handler(data):
            seen.push(data)
            return {"again": data["value"]}

        function_id = self.worker.serve(handler)
        self.worker.settled()
        for value in (None, True, 0, -1, 2**53 - 1, 1.5, "", "e\u0301 é 🦀 \u0000", [], {}, {"a": [None, {"b": "🦀"}]}):
            answer = self.worker.call("node::relay", {"function_id": function_id, "payload": {"value": value}})
            self.assertEqual(answer, {"again": value})
            self.assertEqual(seen.count(1)[0]["value"], value)
            seen.seen.clear()

    @unittest.skipIf(OLD, "iii-sdk 0.11 has no call metadata")
    def test_metadata(self):
        calls = Calls()

        def handler(data, metadata=None):
            calls.push(metadata)

        function_id, stream = self.worker.serve(handler), unique("metadata")
        self.worker.sdk.register_trigger({"type": "stream", "function_id": function_id, "config": {"stream_name": stream}, "metadata": {"shop": 7}})
        self.worker.settled()
        self.set(stream, "g", "i", 1)
        self.assertEqual(calls.count(1), [{"shop": 7}])
        self.worker.call(function_id, {}, metadata={"shop": 8})
        self.assertEqual(calls.count(2)[1], {"shop": 8})

    def test_a_thrown_error(self):
        function_id = self.worker.serve(fail)
        self.worker.settled()
        code, message = self.another().error(function_id, {})
        self.assertEqual(code, "invocation_failed")
        self.assertIn("no é 🦀", message)

    def test_a_worker_that_goes_while_it_is_called(self):
        leaving = Worker()
        called, forever, answers = threading.Event(), threading.Event(), Calls()
        self.addCleanup(forever.set)

        def never(_):
            called.set()
            forever.wait()

        function_id = leaving.serve(never)
        leaving.settled()
        threading.Thread(target=lambda: answers.push(self.worker.error(function_id, {})), daemon=True).start()
        self.assertTrue(called.wait(WAIT_S), "the call did not arrive")
        leaving.close()
        self.assertEqual(answers.count(1)[0][0], "invocation_stopped")
        code, message = self.worker.error(function_id, {})
        self.assertEqual(code, "function_not_found")
        self.assertIn(function_id, message)

    def test_void_calls(self):
        at = {"stream_name": unique("void"), "group_id": "g", "item_id": "i"}
        for n in range(200):
            self.assertIsNone(self.worker.call("stream::set", {**at, "data": n}, action=VOID))
            if n % 50 == 0:
                self.assertEqual(self.worker.stream("get", **at), n, "a call after a void call sees it")
        self.worker.call(unique("no::such"), {}, action=VOID)
        self.worker.call("stream::set", "nonsense", action=VOID)
        other, calls = self.another(), Calls()
        function_id = other.serve(calls.push)
        other.settled()
        self.worker.call(function_id, {"n": 1}, action=VOID)
        self.assertEqual(calls.count(1)[0]["n"], 1)
        self.assertEqual(self.worker.stream("get", **at), 199)

    def test_an_item_of_1_mb(self):
        # 20 bytes of JSON each. 0.11 sends \\u escapes, gets them back as it sent them, and reads at most 1 MiB.
        stream, text = unique("large"), ("0123456789abcdef\"\\" if OLD else "0123456789é🦀\"\\") * 50_000
        calls = self.worker.bind("stream", {"stream_name": stream})
        self.assertTrue(self.set(stream, "g", "i", text)["new_value"] == text, "in the answer of set")
        self.assertTrue(self.get(stream, "g", "i") == text, "in get")
        self.assertTrue(calls.count(1)[0]["event"]["data"] == text, "in the trigger")

    def test_an_item_of_20_mb(self):
        stream, text = unique("large"), "0123456789é🦀\"\\" * 1_000_000
        subscriber = self.subscriber()
        subscriber.join(stream, "g")
        if OLD:
            # It can send that much but not read it: what it sent is seen by the subscriber.
            self.worker.call("stream::set", {"stream_name": stream, "group_id": "g", "item_id": "i", "data": text}, action=VOID)
        else:
            calls = self.worker.bind("stream", {"stream_name": stream})
            self.assertTrue(self.set(stream, "g", "i", text)["new_value"] == text, "in the answer of set")
            self.assertTrue(self.get(stream, "g", "i") == text, "in get")
            self.assertTrue(calls.count(1)[0]["event"]["data"] == text, "in the trigger")
        self.assertTrue(subscriber.next()["event"]["data"] == text, "at the subscriber")
        self.worker.call("stream::delete", {"stream_name": stream, "group_id": "g", "item_id": "i"}, action=VOID)

    def test_odd_names(self):
        stream = unique("odd")
        for number, odd in enumerate(ODD_NAMES):
            self.set(stream + odd, odd, odd, number)
        for number, odd in enumerate(ODD_NAMES):
            self.assertEqual(self.get(stream + odd, odd, odd), number, repr(odd))
            self.assertEqual(self.worker.stream("list_groups", stream_name=stream + odd), [odd])
        self.set("a:b", "c", stream, 1)
        self.assertIsNone(self.get("a", "b:c", stream), "a colon joins nothing")
        text = "e\u0301 é 🦀 \u0000 \u2028"
        function_id = self.worker.serve(lambda data: data["text"], 'fn::é/..:🦀 "x"')
        self.worker.settled()
        self.assertEqual(self.worker.call(function_id, {"text": text}), text)

    def test_zz_a_restarted_server_gets_everything_back(self):
        """Last by name: it ends the connections that the class shares."""
        other, stream, back = self.another(), unique("back"), unique("fn::back")
        other.sdk.register_function(back, lambda data: data["n"] + 1)
        changes = other.bind("stream", {"stream_name": stream})
        guards = other.bind("stream:join", {"stream_name": stream}, lambda data: {"unauthorized": True})
        self.set(stream, "g", "i", "before")
        self.assertEqual(changes.count(1)[0]["event"]["data"], "before")
        restart_server()
        # Both must be back within 5 s: they try every 50 ms to 200 ms.
        for worker in (other, self.worker):
            worker.call("stream::list_all", {}, timeout_ms=5_000)
        self.assertEqual(self.worker.call(back, {"n": 1}), 2)
        self.assertEqual(self.set(stream, "g", "i", "after"), {"old_value": "before", "new_value": "after"})
        self.assertEqual(changes.count(2)[1]["event"]["data"], "after")
        self.assertEqual(self.subscriber().join(stream, "g"), "unauthorized")
        self.assertEqual(len(guards.count(1)), 1)
        self.assertEqual(len(changes.all()), 2, "each trigger once")
