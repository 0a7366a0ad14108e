// Errors whose `code` programs branch on.

/** An `Error` with a stable `code`, and a message for people. */
export function codedError<Code extends string>(code: Code, message: string): Error & { code: Code } {
  return Object.assign(new Error(message), { code });
}
