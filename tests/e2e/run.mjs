// End-to-end tests: the real programs, the unmodified SDKs.
//   node tests/e2e/run.mjs [words of a suite's or test's name]
// FLUX_BIN is the folder of the built programs (target/debug), FLUX_PYTHON a Python that has
// centrifuge-python. The last line is `N passed, N failed, N skipped`.

import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";

import { endPython } from "./clients/python.mjs";
import { Skip } from "./harness/suite.mjs";

const TEST_MS = 120_000;
const folder = fileURLToPath(new URL("promises", import.meta.url));
const wanted = process.argv.slice(2).join(" ");
const counts = { passed: 0, failed: 0, skipped: 0 };
const failures = [];

function within(promise, ms, what) {
  let timer;
  const late = new Promise((_, fail) => { timer = setTimeout(() => fail(new Error(`${what}: not done after ${ms} ms`)), ms); });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

function indent(text) {
  return text.replaceAll(/^/gm, "        ");
}

/** Said where it happened, and once more at the end, where whoever reads only the end of a log finds it. */
function reportFailure(name, error) {
  console.log(`FAILED  ${name}\n${indent(error.stack)}`);
  failures.push(`${name}: ${error.message.split("\n", 1)[0]}`);
}

async function runSuite(suite) {
  const tests = suite.tests.filter(({ name }) => `${suite.name}: ${name}`.includes(wanted));
  if (tests.length === 0) return;
  let world;
  try {
    world = await within(suite.start(), TEST_MS, "start");
  } catch (error) {
    if (error instanceof Skip) {
      counts.skipped += tests.length;
      console.log(`skipped: ${suite.name}: ${error.message}`);
    } else {
      counts.failed += tests.length;
      reportFailure(`${suite.name} (its start)`, error);
    }
    return;
  }
  const left = tests.values();
  await Promise.all(Array.from({ length: suite.parallel }, async () => {
    for (const test of left) await runTest(suite, world, test);
  }));
  await world.stop();
}

async function runTest(suite, world, { name, run }) {
  const began = Date.now();
  const clients = [];
  const context = { ...world, add: (client) => { clients.push(client); return client; } };
  try {
    await within(run(context), TEST_MS, name);
    counts.passed += 1;
    console.log(`ok      ${suite.name}: ${name} (${((Date.now() - began) / 1000).toFixed(1)} s)`);
  } catch (error) {
    if (error instanceof Skip) {
      counts.skipped += 1;
      console.log(`skipped: ${suite.name}: ${name}: ${error.message}`);
    } else {
      counts.failed += 1;
      reportFailure(`${suite.name}: ${name}`, error);
      for (const process of world.processes?.() ?? []) {
        console.log(indent(`${process.name}${process.exit ? ` ended ${JSON.stringify(process.exit)}` : ""}:\n${process.log.split("\n").slice(-8).join("\n")}`));
      }
    }
  }
  for (const client of clients) await Promise.resolve(client.close()).catch(() => {});
}

for (const file of readdirSync(folder).sort()) {
  const { suites } = await import(`./promises/${file}`);
  for (const suite of suites) await runSuite(suite);
}
endPython();
for (const failure of failures) console.log(`FAILED  ${failure}`);
console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
process.exit(counts.failed === 0 && counts.passed > 0 ? 0 : 1);
