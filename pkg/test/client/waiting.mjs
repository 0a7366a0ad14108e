// Waiting for what must happen, with a time limit that says what did not.

const WAIT_MS = 10_000;

export async function within(promise, what, ms = WAIT_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${ms} ms for ${what}`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Resolves when `condition()` holds, asked whenever `source.subscribe` tells of a change. */
export function until(source, condition, what, ms = WAIT_MS) {
  let end = () => {};
  const reached = new Promise((resolve, reject) => {
    const look = () => {
      try {
        if (condition()) resolve();
      } catch (error) {
        reject(error);
      }
    };
    end = source.subscribe(look);
    look();
  });
  return within(reached, what, ms).finally(() => end());
}

/** What a promise is rejected with; it must not resolve. */
export async function rejection(promise) {
  let value;
  try {
    value = await within(promise, 'a rejection');
  } catch (error) {
    return error;
  }
  throw new Error(`should have been rejected, but gave ${JSON.stringify(value)}`);
}
