// Tokens as a backend makes them (JWT, HS256), and the secret that the gateways of the tests know.

import { createHmac } from "node:crypto";

export const SECRET = "a secret of the tests, of more than 32 bytes";

const part = (value) => Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");

export function token(claims, { secret = SECRET, header = { alg: "HS256", typ: "JWT" } } = {}) {
  const signed = `${part(header)}.${part(claims)}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}

/** Seconds since 1970, `seconds` from now. */
export function fromNow(seconds) {
  return Math.floor(Date.now() / 1000) + seconds;
}
