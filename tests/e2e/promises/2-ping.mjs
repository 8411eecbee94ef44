// Pings: who answers stays, who does not is closed with 3012 and comes back by itself.

import assert from "node:assert/strict";

import { JavaScriptClient } from "../clients/javascript.mjs";
import { PythonClient } from "../clients/python.mjs";
import { RawClient } from "../clients/raw.mjs";
import { until } from "../harness/poll.mjs";
import { Gateway } from "../harness/processes.mjs";
import { alone, suite } from "../harness/suite.mjs";

const settings = { client: { ping_interval: "1s", pong_timeout: "500ms", stale_close_delay: "1s" } };

export const suites = [
  suite("ping", () => alone(Gateway, { settings }), {
    "both SDKs answer pings and stay": async ({ gateway, add }) => {
      const clients = [add(new JavaScriptClient(gateway.url)).open(), add(new PythonClient(gateway.url)).open()];
      await Promise.all(clients.map((client) => client.connected()));
      await until("five pings", () => clients[0].frames.filter((frame) => frame === "{}").length >= 5, 15_000);
      for (const client of clients) assert.deepEqual(client.events.map((event) => event.kind).filter((kind) => kind !== "connecting"), ["connected"]);
    },

    "a client that does not answer is closed with 3012": async ({ gateway, add }) => {
      const client = add(new RawClient(gateway.url));
      const reply = await client.connect();
      assert.deepEqual([reply.ping, reply.pong], [1, true]);
      const { code, reason } = await client.ended();
      assert.deepEqual([code, reason], [3012, "no pong"]);
      assert.ok(client.frames.includes("{}"));
    },

    "an SDK that was silent too long reconnects and resubscribes by itself": async ({ gateway, add }) => {
      const client = add(new JavaScriptClient(gateway.url)).open();
      await client.subscribe("back");
      const closed = () => gateway.metric("flux_connections_ended", 'reason="no_pong"');
      const before = await closed();
      // The event loop of this client stands still: its pongs stay away.
      client.centrifuge._transport._transport.pause();
      await until("the server has given up", async () => (await closed()) > before);
      client.centrifuge._transport._transport.resume();
      await client.connected(2);
      assert.equal(client.closes[0].code, 3012);
      await client.event("subscribed", "back", { count: 2 });
      await client.publish("back", "again");
      await client.hears("back", "again");
    },

    "a connection without a connect command is closed with 3502": async ({ gateway, add }) => {
      const client = await add(new RawClient(gateway.url)).opened;
      assert.equal((await client.ended()).code, 3502);
    },
  }),
];
