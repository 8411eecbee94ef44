// What README and docs/protocol.md say holds. What the README shows works as it is pasted, on a cluster of the configuration that ./start.sh uses. Only places are
// put in: the ports, which the kernel gives here, and the file that a page loads the SDK from, which is the npm package.

import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { chromium, launch } from "../../../dashboard/tests/browser/chromium.mjs";
import { PYTHON } from "../clients/python.mjs";
import { until } from "../harness/poll.mjs";
import { Cluster, Gateway, PROGRAMS, ROOT, Redis } from "../harness/processes.mjs";
import { Skip, suite, together } from "../harness/suite.mjs";

const README = readFileSync(join(ROOT, "README.md"), "utf8");
const PROTOCOL = readFileSync(join(ROOT, "docs/protocol.md"), "utf8");
const SDK = fileURLToPath(new URL("../node_modules/centrifuge", import.meta.url));
const KEY = "of-the-readme";

/** The fenced block of a language; there is one of each. */
function block(language) {
  const found = [...README.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\`$`, "gms"))];
  assert.equal(found.length, 1, `blocks of ${language} in the README`);
  return found[0][1];
}

/** All that stands between backquotes or in indented lines: commands, keys, paths. */
function commands() {
  const quoted = [...README.matchAll(/`([^`\n]+)`/g)].map((found) => found[1]);
  const lines = [...README.matchAll(/^ {4}(\S.*)$/gm)].map((found) => found[1]);
  return [...quoted, ...lines];
}

/** What a program prints. Nothing is configured by the environment of these tests. */
function says(command, args, options = {}) {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("FLUX_")));
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: "utf8", timeout: 20_000, env, ...options });
  assert.equal(status, 0, `${command} ${args.join(" ")}: ${stderr}`);
  return stdout;
}

/** The cluster, a folder that looks like the repository after ./start.sh, and the README's places put in. */
async function world() {
  if (!Redis.isHere) throw new Skip("no redis-server here");
  const config = join(ROOT, "scripts/demo.toml");
  const cluster = await together(Cluster, 2, { config, env: { FLUX_HTTP_API_KEY: KEY } });
  const folder = mkdtempSync(join(tmpdir(), "flux-readme-"));
  mkdirSync(join(folder, ".flux"));
  mkdirSync(join(folder, "target"));
  writeFileSync(join(folder, ".flux/api-key"), `${KEY}\n`);
  symlinkSync(PROGRAMS, join(folder, "target/cluster"));
  const clients = new URL(cluster.balancer.url).host;
  const here = (text) => text.replaceAll("127.0.0.1:8080", clients).replaceAll("127.0.0.1:8101", cluster.gateways[0].admin);
  return {
    ...cluster,
    folder,
    here,
    stop: async () => {
      await cluster.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** The page of the README, opened from a file as it says. */
async function opened({ folder, here }, context, { without = [] } = {}) {
  const file = join(folder, "page.html");
  writeFileSync(file, here(block("html")));
  const page = await context.newPage();
  await page.addInitScript((names) => { for (const name of names) delete globalThis[name]; }, without);
  await page.route("https://unpkg.com/**", (route) => {
    const [, name, version, path] = new URL(route.request().url()).pathname.match(/^\/(\w+)@(\d+)\/(.*)$/);
    const { name: ours, version: installed } = JSON.parse(readFileSync(join(SDK, "package.json"), "utf8"));
    assert.deepEqual([name, version], [ours, installed.split(".")[0]], "the page asks for the SDK that is tested");
    return route.fulfill({ path: join(SDK, path), contentType: "text/javascript" });
  });
  await page.goto(`file://${file}`);
  return {
    page,
    shown: () => page.$$eval("li", (items) => items.map((item) => item.textContent)),
    say: async (text) => {
      await page.fill("input", text);
      await page.press("input", "Enter");
    },
  };
}

async function withBrowser(run) {
  if (!chromium) throw new Skip("no Chromium here");
  if (!existsSync(fileURLToPath(new URL("../../../dashboard/tests/browser/node_modules/playwright-core", import.meta.url)))) {
    throw new Skip("no playwright-core in dashboard/tests/browser (npm ci there)");
  }
  const browser = await launch();
  try {
    await run(browser.context);
  } finally {
    await browser.close();
  }
}

/** What each of the pages shows, without the offsets, once all show as much. */
async function shownBy(pages, count) {
  await until(`every page shows ${count}`, async () => {
    const all = await Promise.all(pages.map((page) => page.shown()));
    return all.every((shown) => shown.length >= count);
  }, 30_000);
  return Promise.all(pages.map((page) => page.shown()));
}

const examples = {
  "the page, opened twice: both show what either says, and nothing is missing or there twice after a drain": async (cluster) => {
    await withBrowser(async (context) => {
      const pages = [await opened(cluster, context), await opened(cluster, context)];
      const connections = async () => Promise.all(cluster.gateways.map(async (gateway) => (await gateway.status()).connections));
      await until("both pages are connected", async () => (await connections()).reduce((a, b) => a + b) === 2);
      await pages[0].say("one");
      await pages[1].say("two");
      const first = await shownBy(pages, 2);
      assert.deepEqual(first[0], first[1], "the same order on both");
      assert.deepEqual(first[0].map((line) => line.replace(/^\d+: /, "")).sort(), ["one", "two"]);
      // A page reconnects when it is told to; what the other one says meanwhile is not missing.
      const drained = cluster.gateways[(await connections()).findIndex((count) => count > 0)];
      drained.signal("SIGTERM");
      const said = [];
      for (let number = 3; !drained.exit || number <= 20; number += 1) {
        said.push(`${number}`);
        await pages[number % 2].say(`${number}`);
        await until("the page shows what it said", async () => (await pages[number % 2].shown()).some((line) => line.endsWith(`: ${number}`)), 20_000);
      }
      const [a, b] = await shownBy(pages, 2 + said.length);
      assert.deepEqual(a, b);
      assert.deepEqual(a.slice(2).map((line) => line.split(": ")[1]), said);
      const offsets = a.map((line) => Number(line.split(":")[0]));
      assert.deepEqual(offsets, offsets.map((_, at) => offsets[0] + at), "numbered without gaps");
      await drained.start();
      await cluster.cluster.routes(cluster.gateways.map((gateway) => gateway.id));
      await drained.whole();
      for (const { page } of pages) await page.close();
    });
  },

  "the page where WebSocket is blocked: it goes on with HTTP streaming, and with server-sent events": async (cluster) => {
    await withBrowser(async (context) => {
      const other = await opened(cluster, context);
      for (const [transport, without] of [["http_stream", ["WebSocket"]], ["sse", ["WebSocket", "ReadableStream"]]]) {
        const page = await opened(cluster, context, { without });
        const text = `without ${without.join(" and ")}`;
        await until("it is connected", () => page.page.evaluate("client.state === 'connected' && room.state === 'subscribed'"));
        assert.equal(await page.page.evaluate("client._transport.name()"), transport);
        await page.say(text);
        for (const { shown } of [page, other]) {
          await until(`"${text}" is shown`, async () => (await shown()).some((line) => line.endsWith(`: ${text}`)));
        }
        await page.page.close();
      }
      await other.page.close();
    });
  },

  "the backend's lines with curl: each answers with what it is for": async ({ folder, here, gateways }) => {
    const lines = here(block("sh")).trim().split("\n");
    const all = says("sh", ["-euc", lines.map((line) => (line.startsWith("curl") ? `${line}; echo` : line)).join("\n")], { cwd: folder });
    const [published, history, presence, info] = all.trim().split("\n").map((line) => JSON.parse(line).result);
    assert.ok(published.offset > 0 && published.epoch, all);
    assert.deepEqual(history.publications[0].data, { text: "from the backend" });
    assert.ok(presence.presence, all);
    assert.deepEqual(info.nodes.map((node) => node.name).sort(), gateways.map((gateway) => gateway.id));
  },

  "publishing at a terminal: the line as it stands": async ({ folder, here, gateways }) => {
    const line = commands().find((text) => text.includes("flux-gateway publish room"));
    says("sh", ["-euc", here(line)], { cwd: folder });
    const answer = await fetch(`http://${gateways[0].admin}/api/history`, {
      method: "POST", headers: { "X-API-Key": KEY }, body: JSON.stringify({ channel: "room", limit: 1, reverse: true }),
    });
    assert.deepEqual((await answer.json()).result.publications[0].data, { text: "hello" });
  },

  "the API's document is where the README says": async ({ gateways }) => {
    const path = commands().find((text) => text.endsWith("openapi.json"));
    const document = await (await fetch(`http://${gateways[0].admin}${path}`)).json();
    assert.ok(document.paths["/api/publish"] ?? document.paths["/publish"], Object.keys(document.paths));
  },

  "the Python program: it prints what it publishes": async ({ folder, here }) => {
    if (spawnSync(PYTHON, ["-c", "import centrifuge"]).status !== 0) throw new Skip("no Python with centrifuge-python here (FLUX_PYTHON)");
    const file = join(folder, "client.py");
    writeFileSync(file, here(block("python")));
    const child = spawn(PYTHON, ["-u", file], { stdio: ["ignore", "pipe", "pipe"] });
    let out = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (bytes) => { out += bytes; });
    try {
      await until("it prints the publication", () => {
        if (child.exitCode !== null) throw new Error(out);
        return /^\d+ \{'text': 'hello'\}$/m.test(out);
      });
    } finally {
      child.kill("SIGKILL");
    }
  },

  "metrics that it tells to watch exist": async ({ balancer, gateways }) => {
    const pages = await Promise.all([balancer, ...gateways].map(async ({ admin }) => (await fetch(`http://${admin}/metrics`)).text()));
    const names = commands().filter((text) => /^flux_\w+$/.test(text) && text !== "flux_sid");
    assert.ok(names.length > 0);
    for (const name of names) assert.ok(pages.some((page) => page.includes(name)), name);
  },
};

const words = {
  "every link and every script that it names is there, and says how it is used": async () => {
    for (const [, target] of README.matchAll(/\]\((?!https?:)([^)#]+)/g)) assert.ok(existsSync(join(ROOT, target)), target);
    const scripts = new Set(commands().flatMap((text) => text.match(/^(\.\/\w+\.sh|scripts\/[\w/]+)/)?.[1] ?? []));
    assert.ok(scripts.size >= 6, [...scripts].join());
    for (const script of scripts) {
      assert.ok(existsSync(join(ROOT, script)), script);
      assert.match(says(join(ROOT, script), ["--help"]), /usage|\w/i, script);
    }
  },

  "every flag and every command of its table exists": async () => {
    const rows = [...README.matchAll(/^\| `(flux-[\w-]+)` \| (.*) \|$/gm)];
    assert.deepEqual(rows.map(([, program]) => program), ["flux-gateway", "flux-lb", "flux-dashboard", "flux-bench"]);
    for (const [, program, row] of rows) {
      const help = says(join(PROGRAMS, program), ["--help"]);
      for (const word of row.match(/`[^`]+`/g).flatMap((quoted) => quoted.slice(1, -1).replaceAll("\\|", "|").split(" "))) {
        if (word.startsWith("flux-") || !/^[-\w]+$/.test(word)) continue;
        assert.ok(new RegExp(`(^|\\s)${word}\\b`, "m").test(help), `${program} ${word}`);
      }
    }
  },

  "every scenario of demo.sh that it names exists": async () => {
    const line = README.match(/demo\.sh --scenario ([\w|]+)/)[1];
    const help = says(join(ROOT, "demo.sh"), ["--help"]);
    for (const name of line.split("|")) assert.ok(help.includes(name), name);
  },

  "every configuration key that it names exists, with the figure that it gives": async () => {
    const effective = says(join(PROGRAMS, "flux-gateway"), ["--check-config"]);
    const known = effective.split("\n").map((line) => line.split(/\s+/)[0]);
    const balancers = says(join(PROGRAMS, "flux-lb"), ["--check-config"]);
    known.push(...balancers.split("\n").map((line) => line.split(/\s+/)[0]));
    const expanded = commands().flatMap((text) => {
      const several = text.match(/^([\w.]+)\.\{([\w,]+)\}$/);
      return several ? several[2].split(",").map((last) => `${several[1]}.${last}`) : [text];
    });
    const keys = expanded.filter((text) => /^(client|channel|engine|http_api|history|rpc|registry|fanout)[\w]*(\.[\w]+)+(\.\*)?$/.test(text) || ["redis_ca_file", "trusted_proxies", "source_addresses", "history_size", "history_ttl"].includes(text));
    assert.ok(keys.length >= 8, keys.join());
    for (const key of keys) {
      const name = key.replace(/\.\*$/, "");
      assert.ok(known.some((line) => line === name || line.startsWith(`${name}.`) || line.endsWith(`.${name}`)), key);
    }
    const [, most] = README.match(/`client\.recovery_max_publication_limit` \((\d+)\)/);
    assert.match(effective, new RegExp(`client\\.recovery_max_publication_limit\\s+${most}\\b`));
  },
};

/** What the first column of a table of docs/protocol.md says, row by row, with the other columns. */
function table(heading) {
  const section = PROTOCOL.split(/^## /m).find((text) => text.startsWith(heading));
  const rows = section.split("\n").filter((line) => line.startsWith("|")).slice(2);
  return rows.map((row) => row.slice(1, -1).split("|").map((cell) => cell.trim()));
}

/** Paths of a row: the first whole, the others beside it. */
function paths(cell) {
  const [first, ...others] = cell.match(/`[^`]+`/g).map((quoted) => quoted.slice(1, -1));
  return [first, ...others.map((name) => first.replace(/[^/]+$/, name))];
}

async function status(address, path, options) {
  const answer = await fetch(`http://${address}${path}`, options);
  await answer.body?.cancel();
  return answer.status;
}

const ON = ["sse", "http_stream", "uni_websocket", "uni_sse", "uni_http_stream"];

const protocol = {
  "each transport is where its row says, and only where it is switched on": async () => {
    const rows = table("Transports");
    assert.equal(rows.length, 4);
    const settings = Object.fromEntries(ON.map((name) => [name, { enabled: true }]));
    const plain = new Gateway("plain");
    const all = new Gateway("all", { settings });
    const none = new Gateway("none", { settings: { websocket: { disabled: true } } });
    try {
      for (const gateway of [plain, all, none]) await gateway.start();
      for (const [name, where, key] of rows) {
        for (const path of paths(where)) {
          assert.notEqual(await status(all.address, path, { signal: AbortSignal.timeout(5_000) }), 404, `${name} ${path}`);
          const off = key.includes("default") ? none : plain;
          assert.equal(await status(off.address, path), 404, `${name} ${path}`);
        }
      }
    } finally {
      for (const gateway of [plain, all, none]) await gateway.remove();
    }
  },

  "every method of the server API that it names is there, and those that it says are not are not": async () => {
    const [there, absent] = PROTOCOL.split(/^## Server API/m)[1].split("Not there:");
    const methods = there.split("acts on")[0].match(/`(\w+)`/g).map((quoted) => quoted.slice(1, -1));
    assert.equal(methods.length, 14);
    const gateway = new Gateway("alone", { settings: { http_api: { key: KEY } } });
    try {
      await gateway.start();
      const options = { method: "POST", headers: { "X-API-Key": KEY }, body: "{}" };
      for (const method of methods) assert.equal(await status(gateway.admin, `/api/${method}`, options), 200, method);
      for (const [, method] of absent.matchAll(/`([\w*]+)`/g)) {
        assert.equal(await status(gateway.admin, `/api/${method.replace("*", "publish")}`, options), 404, method);
      }
      assert.ok((await gateway.metric("flux_api_refused", 'reason="unknown_method"')) >= 2);
    } finally {
      await gateway.remove();
    }
  },

  "a configuration that asks for what is not there is refused by name, with what to do": async () => {
    const folder = mkdtempSync(join(tmpdir(), "flux-readme-"));
    try {
      for (const [key, settings] of [
        ["grpc_api", { grpc_api: { enabled: true } }],
        ["uni_grpc", { uni_grpc: { enabled: true } }],
        ["webtransport", { webtransport: { enabled: true } }],
        ["admin", { admin: { enabled: true } }],
        ["broker", { broker: { enabled: true, type: "nats" } }],
        ["consumers", { consumers: [{ name: "kafka", enabled: true, type: "kafka" }] }],
        ["websocket.compression", { websocket: { compression: true } }],
        ["websocket.handler_prefix", { websocket: { handler_prefix: "/ws" } }],
        ["channel.proxy.subscribe_stream", { channel: { proxy: { subscribe_stream: { endpoint: "grpc://127.0.0.1:1" } } } }],
        ["channel.namespaces[0].map", { channel: { namespaces: [{ name: "a", map: { mode: "x" } }] } }],
        ["channel.namespaces[0].shared_poll", { channel: { namespaces: [{ name: "a", shared_poll: { x: 1 } }] } }],
        ["rpc.proxy.endpoint", { rpc: { proxy: { endpoint: "grpc://127.0.0.1:1" }, without_namespace: { proxy_enabled: true } } }],
        ["swordfish", { swordfish: 1 }],
      ]) {
        const file = join(folder, "config.json");
        writeFileSync(file, JSON.stringify(settings));
        const { status: code, stderr } = spawnSync(join(PROGRAMS, "flux-gateway"), ["--config", file, "--check-config"], { encoding: "utf8", env: {} });
        assert.equal(code, 2, key);
        assert.ok(stderr.includes(`\`${key}\``) && stderr.trim().split("\n").length === 1, `${key}: ${stderr}`);
      }
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
};

export const suites = [
  suite("protocol.md", async () => ({ stop: async () => {} }), protocol),
  suite("readme", world, examples),
  suite("readme's words", async () => ({ stop: async () => {} }), words),
];
