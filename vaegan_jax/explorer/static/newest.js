// Requests without a queue: one runs at a time, and only the newest waiting one follows.

/** An error response of the server. */
export class RequestError extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

export async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options });
  } catch {
    throw new RequestError(0, "The explorer does not respond: is it still running?");
  }
  if (!response.ok) {
    const body = await response.json().catch(() => ({}));
    throw new RequestError(response.status, body.error ?? `The explorer responds with status ${response.status}.`);
  }
  return response;
}

export function post(path, object) {
  return request(path, {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(object),
  });
}

/** Returns a function that runs work(args), skipping calls that are superseded while they wait. */
export function newestOnly(work, onError) {
  let busy = false;
  let waiting = null;
  async function run() {
    busy = true;
    while (waiting) {
      const { args } = waiting;
      waiting = null;
      try {
        await work(args);
      } catch (error) {
        if (error.status === 503) {
          // The server is busy: retry, with newer arguments if there are any.
          await new Promise((resolve) => setTimeout(resolve, 200));
          waiting ??= { args };
        } else onError(error);
      }
    }
    busy = false;
  }
  return (args) => {
    waiting = { args };
    if (!busy) run();
  };
}
