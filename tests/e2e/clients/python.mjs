// The unmodified PyPI package `centrifuge-python`, in a Python process that does what it is told in lines of JSON.

import { spawn, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { Skip } from "../harness/suite.mjs";
import { Client, Refused } from "./client.mjs";

const VENV = fileURLToPath(new URL("../../../target/test-venv/bin/python", import.meta.url));
const PYTHON = process.env.FLUX_PYTHON ?? (existsSync(VENV) ? VENV : "python3");
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
      if (answer === undefined) {
        this.clients[client].events.push(rest);
        return;
      }
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
  sdk = "Python";

  constructor(url) {
    super();
    isHere ??= spawnSync(PYTHON, ["-c", "import centrifuge"]).status === 0;
    if (!isHere) throw new Skip(`${PYTHON} has no package centrifuge-python`);
    agent ??= new Agent();
    this.agent = agent;
    this.number = agent.clients.push(this) - 1;
    this.url = url;
  }

  ask(op, words) {
    return this.agent.ask(this.number, op, words);
  }

  open() {
    // Whether it connects is told by events.
    this.ask("open", { url: this.url }).catch(() => {});
    return this;
  }

  subscribe(channel, { joinLeave = false } = {}) {
    return this.ask("subscribe", { channel, join_leave: joinLeave });
  }

  unsubscribe(channel) {
    return this.ask("unsubscribe", { channel });
  }

  publish(channel, data) {
    return this.ask("publish", { channel, data });
  }

  history(channel) {
    return this.ask("history", { channel });
  }

  presence(channel) {
    return this.ask("presence", { channel });
  }

  presenceStats(channel) {
    return this.ask("presence_stats", { channel });
  }

  rpc(method, data) {
    return this.ask("rpc", { method, data });
  }

  close() {
    return this.ask("close");
  }
}
