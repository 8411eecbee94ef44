// A backend on a port of its own: what the gateway's proxies ask, and what it answers.

import http from "node:http";

export class Backend {
  constructor() {
    /** Path -> function from the request's body to the answer's. */
    this.answers = {};
    this.asked = [];
  }

  async start() {
    this.server = http.createServer((request, response) => {
      let body = "";
      request.on("data", (bytes) => { body += bytes; });
      request.on("end", () => {
        const question = { path: request.url, body: JSON.parse(body || "null") };
        this.asked.push(question);
        const answer = this.answers[request.url]?.(question.body) ?? { error: { code: 404, message: "no such path" } };
        response.setHeader("Content-Type", "application/json");
        response.end(JSON.stringify(answer));
      });
    });
    await new Promise((resolve, reject) => this.server.once("error", reject).listen(0, "127.0.0.1", resolve));
    this.url = `http://127.0.0.1:${this.server.address().port}`;
    return this;
  }

  of(path) {
    return this.asked.filter((question) => question.path === path).map((question) => question.body);
  }

  async close() {
    this.server.closeAllConnections();
    await new Promise((resolve) => { this.server.close(resolve); });
  }
}
