// A suite: tests that share processes. `start` gives the world: what the tests take apart, plus `stop`
// and `processes`, whose logs are shown when a test fails. Each test gets `add` besides, which takes
// clients to be closed at its end. Tests run one after the other, or `parallel` at a time where they do not
// mind one another.

/** What cannot be tested here, with the reason. */
export class Skip extends Error {}

export function suite(name, start, tests, { parallel = 1 } = {}) {
  return { name, start, parallel, tests: Object.entries(tests).map(([name, run]) => ({ name, run })) };
}

/** The world of one gateway without Redis. */
export async function alone(Gateway, options) {
  const gateway = new Gateway("alone", options);
  try {
    await gateway.start();
  } catch (error) {
    await gateway.remove();
    throw error;
  }
  return { gateway, processes: () => [gateway], stop: () => gateway.remove() };
}

/** The world of a cluster. */
export async function together(Cluster, count, options) {
  const cluster = new Cluster(count, options);
  try {
    await cluster.start();
  } catch (error) {
    await cluster.remove();
    throw error;
  }
  const { gateways, balancer, redis } = cluster;
  return { cluster, gateways, balancer, redis, processes: () => cluster.processes, stop: () => cluster.remove() };
}
