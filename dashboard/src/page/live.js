// The stream of documents: connects, notices silence, connects again.

const SILENT_MS = 6000;
const RETRY_MS = 1000;

/**
 * Calls `onDocument` for each document. Reconnects by itself: after an error,
 * and after a silence on a connection that still looks open.
 */
export function follow(onDocument) {
  let source = null;
  let heard = performance.now();

  function open() {
    source?.close();
    heard = performance.now();
    source = new EventSource("/api/events");
    source.onmessage = (message) => {
      heard = performance.now();
      onDocument(JSON.parse(message.data));
    };
  }

  open();
  setInterval(() => {
    const silent = performance.now() - heard;
    const closed = source.readyState === EventSource.CLOSED;
    if (silent > SILENT_MS || (closed && silent > RETRY_MS)) open();
  }, RETRY_MS);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && performance.now() - heard > RETRY_MS * 2) open();
  });
}

export async function get(path) {
  const answer = await fetch(path, { cache: "no-store" });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}
