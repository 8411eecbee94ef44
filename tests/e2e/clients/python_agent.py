"""Clients of the PyPI package centrifuge-python, steered by lines of JSON on standard input.

A request {"answer": N, "client": C, "op": ..} is answered by {"answer": N, "result": ..} or
{"answer": N, "error": {"code", "message"}}; everything the SDK tells goes out as {"client": C,
"kind": ..}. Where the SDK wants a token it is asked for with the kind "token" and comes as a
request "token".
"""

import asyncio
import dataclasses
import itertools
import json
import sys

from centrifuge import Client, ClientEventHandler, DeltaType, StreamPosition, SubscriptionEventHandler
from centrifuge.exceptions import ReplyError, UnauthorizedError

clients = {}
tokens = {}
token_requests = itertools.count(1)


def tell(record):
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


class Values:
    """Data as the wire format has it: values in JSON, bytes of JSON in Protobuf."""

    def __init__(self, is_protobuf):
        self.is_protobuf = is_protobuf

    def write(self, value):
        return json.dumps(value).encode() if self.is_protobuf else value

    def read(self, data):
        if self.is_protobuf:
            return json.loads(data) if data else None
        return data

    def info(self, info):
        if not info:
            return None
        return {"client": info.client, "user": info.user,
                "connInfo": self.read(info.conn_info), "chanInfo": self.read(info.chan_info)}  # fmt: skip

    def publication(self, pub):
        return {"data": self.read(pub.data), "info": self.info(pub.info), "offset": pub.offset, "tags": pub.tags or {}}


def asker(number, channel):
    """A function that gets a token from the test."""

    async def get_token(*_):
        request = next(token_requests)
        tokens[request] = asyncio.get_running_loop().create_future()
        tell({"client": number, "kind": "token", "channel": channel, "request": request})
        token = await tokens[request]
        del tokens[request]
        if token is None:
            raise UnauthorizedError("the test gives no token")
        return token

    return get_token


def position(stream_position):
    return dataclasses.asdict(stream_position) if stream_position else None


class Told(ClientEventHandler):
    def __init__(self, number, values):
        self.number, self.values = number, values

    def tell(self, kind, **rest):
        tell({"client": self.number, "kind": kind, **rest})

    async def on_connecting(self, ctx):
        self.tell("connecting", code=ctx.code, reason=ctx.reason)

    async def on_connected(self, ctx):
        # `client` is the number here: the id that the server gave goes by another name.
        self.tell("connected", id=ctx.client, version=ctx.version, data=self.values.read(ctx.data))

    async def on_disconnected(self, ctx):
        self.tell("disconnected", code=ctx.code, reason=ctx.reason)

    async def on_error(self, ctx):
        self.tell("error", code=ctx.code, reason=str(ctx.error))

    async def on_subscribed(self, ctx):
        self.tell("subscribed", channel=ctx.channel, isServerSide=True, recovered=ctx.recovered,
                  wasRecovering=ctx.was_recovering, streamPosition=position(ctx.stream_position))  # fmt: skip

    async def on_unsubscribed(self, ctx):
        self.tell("unsubscribed", channel=ctx.channel, isServerSide=True)

    async def on_publication(self, ctx):
        self.tell("publication", channel=ctx.channel, isServerSide=True, **self.values.publication(ctx.pub))


class SubscriptionTold(SubscriptionEventHandler):
    def __init__(self, number, channel, values):
        self.number, self.channel, self.values = number, channel, values
        self.outcome = asyncio.get_running_loop().create_future()

    def tell(self, kind, **rest):
        tell({"client": self.number, "kind": kind, "channel": self.channel, **rest})

    def settle(self, error=None):
        if not self.outcome.done():
            if error:
                self.outcome.set_exception(error)
            else:
                self.outcome.set_result(None)

    async def on_subscribing(self, ctx):
        self.tell("subscribing", code=ctx.code, reason=ctx.reason)

    async def on_subscribed(self, ctx):
        self.tell("subscribed", recoverable=ctx.recoverable, positioned=ctx.positioned, recovered=ctx.recovered,
                  wasRecovering=ctx.was_recovering, streamPosition=position(ctx.stream_position),
                  data=self.values.read(ctx.data))  # fmt: skip
        self.settle()

    async def on_unsubscribed(self, ctx):
        self.tell("unsubscribed", code=ctx.code, reason=ctx.reason)
        self.settle(ReplyError(ctx.code, ctx.reason, False))

    async def on_publication(self, ctx):
        self.tell("publication", **self.values.publication(ctx.pub))

    async def on_join(self, ctx):
        self.tell("join", info=self.values.info(ctx.info))

    async def on_leave(self, ctx):
        self.tell("leave", info=self.values.info(ctx.info))

    async def on_error(self, ctx):
        self.tell("error", code=ctx.code, reason=str(ctx.error))
        self.settle(ctx.error)


async def perform(request):
    number, op = request["client"], request["op"]
    if op == "token":
        tokens[request["request"]].set_result(request["token"])
        return None
    if op == "open":
        values = Values(request["protobuf"])
        client = Client(
            request["url"], events=Told(number, values), use_protobuf=request["protobuf"], token=request["token"],
            get_token=asker(number, "") if request["asks"] else None, max_reconnect_delay=1.0, proxy=None,
        )  # fmt: skip
        clients[number] = client, values
        await client.connect()
        return None
    client, values = clients[number]
    if op == "subscribe":
        channel = request["channel"]
        events = SubscriptionTold(number, channel, values)
        since = request.get("since")
        subscription = client.new_subscription(
            channel, events=events, token=request["token"], join_leave=request["join_leave"],
            get_token=asker(number, channel) if request["asks"] else None,
            positioned=request["positioned"], recoverable=request["recoverable"] or bool(since),
            delta=DeltaType.FOSSIL if request["delta"] else None,
            data=values.write(request["data"]) if request.get("data") is not None else None, max_resubscribe_delay=0.5,
        )  # fmt: skip
        await subscription.subscribe()
        await events.outcome
        return None
    if op == "unsubscribe":
        subscription = client.get_subscription(request["channel"])
        await subscription.unsubscribe()
        client.remove_subscription(subscription)
        return None
    if op == "publish":
        await client.publish(request["channel"], values.write(request["data"]))
        return None
    if op == "rpc":
        return values.read((await client.rpc(request["method"], values.write(request["data"]))).data)
    if op == "history":
        since = request["since"] and StreamPosition(offset=request["since"]["offset"], epoch=request["since"]["epoch"])
        page = await client.history(request["channel"], limit=request["limit"], since=since, reverse=request["reverse"])
        return {"publications": [values.publication(pub) for pub in page.publications],
                "offset": page.offset, "epoch": page.epoch}  # fmt: skip
    if op == "presence":
        found = await client.presence(request["channel"])
        return {"clients": {id_: values.info(info) for id_, info in found.clients.items()}}
    if op == "presence_stats":
        return dataclasses.asdict(await client.presence_stats(request["channel"]))
    if op == "close":
        await client.disconnect()
        return None
    raise ValueError(op)


async def answer(request):
    try:
        tell({"answer": request["answer"], "result": await perform(request)})
    except ReplyError as error:
        tell({"answer": request["answer"], "error": {"code": error.code, "message": error.message}})
    except Exception as error:  # whatever the SDK raises is for the test to judge
        tell({"answer": request["answer"], "error": {"code": getattr(error, "code", None), "message": repr(error)}})


async def main():
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    # Publications of one client keep their order: requests of a client are begun in order, and the
    # SDK writes them in the order in which they were begun.
    tasks = set()
    while line := await reader.readline():
        task = loop.create_task(answer(json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


asyncio.run(main())
