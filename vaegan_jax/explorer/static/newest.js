// Requests that never queue: one is under way at a time, and of those that wait the newest wins.

/** A refusal of the server's, with what it said. */
export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

export async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", ...options });
  } catch {
    throw new Refused(0, "The explorer does not answer: is it still running?");
  }
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}));
    throw new Refused(answer.status, said.error ?? `The explorer answers ${answer.status}.`);
  }
  return answer;
}

export function post(path, object) {
  return ask(path, {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(object),
  });
}

/** Returns request(what): work(what) is begun for it, unless a newer one comes first. */
export function newestOnly(work, failed) {
  let busy = false;
  let waiting = null;
  async function run() {
    busy = true;
    while (waiting) {
      const { what } = waiting;
      waiting = null;
      try {
        await work(what);
      } catch (error) {
        if (error.status === 503) {
          // The server is busy with others: a little later, with whatever is newest then.
          await new Promise((resolve) => setTimeout(resolve, 200));
          waiting ??= { what };
        } else failed(error);
      }
    }
    busy = false;
  }
  return (what) => {
    waiting = { what };
    if (!busy) run();
  };
}
