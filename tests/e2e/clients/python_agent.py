"""Clients of the PyPI package centrifuge-python, steered by lines of JSON on standard input.

A request {"answer": N, "client": C, "op": ..} is answered by {"answer": N, "result": ..} or
{"answer": N, "error": {"code", "message"}}; everything the SDK tells goes out as {"client": C,
"kind": ..}.
"""

import asyncio
import dataclasses
import json
import sys

from centrifuge import Client, ClientEventHandler, SubscriptionEventHandler
from centrifuge.exceptions import ReplyError

clients = {}


def tell(record):
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


def info(info_):
    return {"client": info_.client, "user": info_.user} if info_ else None


class Told(ClientEventHandler):
    def __init__(self, number):
        self.number = number

    def tell(self, kind, **rest):
        tell({"client": self.number, "kind": kind, **rest})

    async def on_connecting(self, ctx):
        self.tell("connecting", code=ctx.code, reason=ctx.reason)

    async def on_connected(self, ctx):
        # `client` is the number here: the id that the server gave goes by another name.
        self.tell("connected", id=ctx.client, version=ctx.version)

    async def on_disconnected(self, ctx):
        self.tell("disconnected", code=ctx.code, reason=ctx.reason)

    async def on_error(self, ctx):
        self.tell("error", code=ctx.code, reason=str(ctx.error))


class SubscriptionTold(SubscriptionEventHandler):
    def __init__(self, number, channel):
        self.number, self.channel = number, channel
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
        self.tell("subscribed")
        self.settle()

    async def on_unsubscribed(self, ctx):
        self.tell("unsubscribed", code=ctx.code, reason=ctx.reason)
        self.settle(ReplyError(ctx.code, ctx.reason, False))

    async def on_publication(self, ctx):
        self.tell("publication", data=ctx.pub.data, info=info(ctx.pub.info))

    async def on_join(self, ctx):
        self.tell("join", info=info(ctx.info))

    async def on_leave(self, ctx):
        self.tell("leave", info=info(ctx.info))

    async def on_error(self, ctx):
        self.tell("error", code=ctx.code, reason=str(ctx.error))
        self.settle(ctx.error)


async def perform(request):
    number, op = request["client"], request["op"]
    if op == "open":
        clients[number] = Client(request["url"], events=Told(number), max_reconnect_delay=2.0, proxy=None)
        await clients[number].connect()
        return None
    client = clients[number]
    if op == "subscribe":
        channel = request["channel"]
        events = SubscriptionTold(number, channel)
        subscription = client.new_subscription(channel, events=events, join_leave=request["join_leave"])
        await subscription.subscribe()
        await events.outcome
        return None
    if op == "unsubscribe":
        subscription = client.get_subscription(request["channel"])
        await subscription.unsubscribe()
        client.remove_subscription(subscription)
        return None
    if op == "publish":
        await client.publish(request["channel"], request["data"])
        return None
    if op == "rpc":
        return (await client.rpc(request["method"], request["data"])).data
    if op == "close":
        await client.disconnect()
        return None
    result = await getattr(client, op)(request["channel"])
    return dataclasses.asdict(result)


async def answer(request):
    try:
        tell({"answer": request["answer"], "result": await perform(request)})
    except ReplyError as error:
        tell({"answer": request["answer"], "error": {"code": error.code, "message": error.message}})
    except Exception as error:  # whatever the SDK raises is for the test to judge
        tell({"answer": request["answer"], "error": {"code": None, "message": repr(error)}})


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
