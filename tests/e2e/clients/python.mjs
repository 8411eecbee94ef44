// The unmodified PyPI package `centrifuge-python`, in a Python process that does what it is told in lines of JSON.

import { spawn, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { Skip } from "../harness/suite.mjs";
import { Client, Refused } from "./client.mjs";

const VENV = fileURLToPath(new URL("../../../target/test-venv/bin/python", import.meta.url));
export const PYTHON = process.env.FLUX_PYTHON ?? (existsSync(VENV) ? VENV : "python3");
const AGENT = fileURLToPath(new URL("python_agent.py", import.meta.url));

let isHere;
let agent = null;

class Agent {
  constructor() {
    this.child = spawn(PYTHON, [AGENT], { stdio: ["pipe", "pipe", "inherit"] });
    this.clients = [];
    this.waiting = new Map();
    this.next = 1;
    createInterface({ input: this.child.stdout }).on("line", (line) => {
      const { answer, client, ...rest } = JSON.parse(line);
      if (rest.kind === "token") {
        this.giveToken(this.clients[client], rest);
        return;
      }
      if (answer === undefined) {
        this.clients[client].events.push(rest);
        return;
      }
      if (answer === 0) return;
      const { resolve, reject } = this.waiting.get(answer);
      this.waiting.delete(answer);
      if (rest.error) reject(new Refused(rest.error));
      else resolve(rest.result);
    });
    this.child.once("exit", () => {
      for (const { reject } of this.waiting.values()) reject(new Error("the Python process has ended"));
      agent = null;
    });
  }

  /** The SDK asks for a token: of the connection where it names no channel. */
  async giveToken(client, { channel, request }) {
    const token = await client.tokens.get(channel)?.({ channel }).catch(() => null);
    this.child.stdin.write(`${JSON.stringify({ answer: 0, client: client.number, op: "token", request, token })}\n`);
  }

  ask(client, op, words = {}) {
    const answer = this.next;
    this.next += 1;
    this.child.stdin.write(`${JSON.stringify({ answer, client, op, ...words })}\n`);
    return new Promise((resolve, reject) => { this.waiting.set(answer, { resolve, reject }); });
  }
}

/** Ends the Python process. */
export function endPython() {
  agent?.child.kill();
}

export class PythonClient extends Client {
  /** `options.protobuf`; `options.centrifuge`: token, getToken (called in this process). */
  constructor(url, options = {}) {
    super();
    isHere ??= spawnSync(PYTHON, ["-c", "import centrifuge"]).status === 0;
    if (!isHere) throw new Skip(`${PYTHON} has no package centrifuge-python`);
    this.sdk = `Python${options.protobuf ? " Protobuf" : ""}`;
    agent ??= new Agent();
    this.agent = agent;
    this.number = agent.clients.push(this) - 1;
    this.url = url;
    this.options = options;
    this.tokens = new Map();
  }

  ask(op, words) {
    return this.agent.ask(this.number, op, words);
  }

  open() {
    const { token = "", getToken } = this.options.centrifuge ?? {};
    this.tokens.set("", getToken);
    // Whether it connects is told by events.
    this.ask("open", { url: this.url, protobuf: Boolean(this.options.protobuf), token, asks: Boolean(getToken) }).catch(() => {});
    return this;
  }

  subscribe(channel, { joinLeave = false, recoverable = false, positioned = false, delta = "", token = "", getToken, data, since } = {}) {
    this.tokens.set(channel, getToken);
    return this.ask("subscribe", {
      channel, join_leave: joinLeave, recoverable, positioned, delta, token, asks: Boolean(getToken), data, since,
    });
  }

  unsubscribe(channel) {
    return this.ask("unsubscribe", { channel });
  }

  publish(channel, data) {
    return this.ask("publish", { channel, data });
  }

  history(channel, { limit = 1, since = null, reverse = false } = {}) {
    return this.ask("history", { channel, limit, since, reverse });
  }

  presence(channel) {
    return this.ask("presence", { channel });
  }

  async presenceStats(channel) {
    const { num_clients: numClients, num_users: numUsers } = await this.ask("presence_stats", { channel });
    return { numClients, numUsers };
  }

  async rpc(method, data) {
    return { data: await this.ask("rpc", { method, data }) };
  }

  close() {
    return this.ask("close");
  }
}
