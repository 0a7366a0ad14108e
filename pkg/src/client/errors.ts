// What can go wrong, as one error type with codes, and the one table that says what each code means for a mutation.

import type { OpError } from "./values.js";

/** More about a {@link StreamError}; which fields there are depends on the code. */
export interface StreamErrorDetails {
  /** `precondition_failed`: the item's present `seq`, or `null` where there is no such item. */
  readonly seq?: number | null;
  /** `mutation_gap`: the `seq` that the server expects. */
  readonly expected?: number;
  /** What the store of the server says: `behind`, `full`, `read_only` or `damaged`. */
  readonly storage?: string;
  /** `atomic_failed`: the operations that failed. */
  readonly errors?: readonly OpError[];
  /** `closed`: whether the mutation is stored, so that the next client on this storage sends it. */
  readonly stored?: boolean;
  /** The close code of the connection. */
  readonly closeCode?: number;
}

/**
 * The only kind of error that this package throws, rejects with or reports.
 *
 * `code` is for programs and stable, `message` for people. Codes of the server come through as they are
 * (`precondition_failed`, `forbidden`, `group_full` …); those of the client are:
 *
 * | code | meaning |
 * |---|---|
 * | `atomic_failed` | an operation of an `atomic` update failed, so none was applied |
 * | `auth_expired`, `slow_consumer`, `rate_limited`, `server_stops`, `server_busy`, `connection_lost`, `connection_refused` | why there is no connection now |
 * | `call_timeout` | the server did not answer in time |
 * | `closed` | the client was closed |
 * | `core_unavailable` | the wasm module could not be loaded |
 * | `forbidden` | also: the connection was closed for good |
 * | `grants_invalid` | the option `grants` is no list of grants; every edit is shown |
 * | `invalid_token` | the token function failed, took too long, or gave something other than a string |
 * | `listener_failed` | a listener of the application threw; `cause` is what it threw |
 * | `message_too_large` | the call is larger than the server takes |
 * | `outcome_unknown` | the mutation may have been carried out or not, and nobody can tell any more |
 * | `protocol_error` | the server said something that this client cannot read |
 * | `storage_failed` | the storage of pending mutations failed; edits are still shown and sent |
 * | `too_many_calls` | also: more calls wait than `callsMax` |
 * | `too_many_pending` | more mutations of a group are pending than `pendingMax` |
 * | `unauthorized` | the server does not let this client read a group or item |
 * | `unsupported_by_server` | the server takes no calls from clients |
 */
export class StreamError extends Error {
  override readonly name = "StreamError";
  /** What to branch on. */
  readonly code: string;
  readonly details: StreamErrorDetails;

  constructor(code: string, message?: string, details: StreamErrorDetails = {}, cause?: unknown) {
    super(message ?? code, cause === undefined ? undefined : { cause });
    this.code = code;
    this.details = details;
  }
}

/**
 * For a {@link StreamClientOptions.send} function: `throw rejected("not_yours", "only the owner may do this")` says that the
 * mutation will never take effect. It is rolled back. Whatever else such a function throws means "try again later".
 */
export function rejected(code = "rejected", message = "the back end refused the mutation"): StreamError {
  return new StreamError(code, message);
}

/** What an error answer means for the mutation that was sent. */
export type Verdict =
  /** It will never take effect: rolled back, its promise rejects. */
  | "final"
  /** It has not taken effect, and may later: sent again after a pause. */
  | "later"
  /** It may have taken effect: sent again after a pause, as resent. */
  | "unsure"
  /** Mutations before it are missing: `details.expected` says where to go on. */
  | "gap"
  /** The server does not know who sends. */
  | "unknown_client";

const VERDICTS: Readonly<Record<string, Verdict>> = {
  mutation_gap: "gap",
  mutation_unknown: "unknown_client",
  too_many_calls: "later",
  rate_limited: "later",
  invocation_stopped: "unsure",
  invocation_timeout: "unsure",
  connection_lost: "unsure",
  connection_refused: "unsure",
  call_timeout: "unsure",
  closed: "unsure",
};

const STORAGE_VERDICTS: Readonly<Record<string, Verdict>> = {
  behind: "later",
  full: "later",
  // Of calls under way at that moment the server does not know it.
  read_only: "unsure",
  damaged: "final",
};

/** The store failed, and nothing was changed. Back ends pass the code on, but seldom `storage`. */
const STORE_FAILED = /^STREAM_[A-Z_]+_ERROR$/;

/** What `error` means for a mutation. Codes that are not in the tables are refusals. */
export function verdictOf(error: StreamError): Verdict {
  const { storage } = error.details;
  const known = (storage === undefined ? undefined : STORAGE_VERDICTS[storage]) ?? VERDICTS[error.code];
  return known ?? (STORE_FAILED.test(error.code) ? "later" : "final");
}

/** The `error` of an answer as it came, as a StreamError. */
export function errorOfAnswer(body: unknown): StreamError {
  const fields = typeof body === "object" && body !== null ? (body as Record<string, unknown>) : {};
  const code = typeof fields["code"] === "string" ? fields["code"] : "protocol_error";
  const message = typeof fields["message"] === "string" ? fields["message"] : code;
  const { seq, expected, storage } = fields;
  return new StreamError(code, message, {
    ...(typeof seq === "number" || seq === null ? { seq } : {}),
    ...(typeof expected === "number" ? { expected } : {}),
    ...(typeof storage === "string" ? { storage } : {}),
  });
}

/** Anything thrown, as a StreamError of `code`; what is one already stays as it is. */
export function asStreamError(thrown: unknown, code: string): StreamError {
  if (thrown instanceof StreamError) return thrown;
  const text = thrown instanceof Error ? thrown.message : String(thrown);
  return new StreamError(code, text, {}, thrown);
}

/** The code of an error of the core, which throws errors with `code`; `undefined` for anything else. */
export function codeOf(thrown: unknown): string | undefined {
  if (typeof thrown !== "object" || thrown === null) return undefined;
  const { code } = thrown as { code?: unknown };
  return typeof code === "string" ? code : undefined;
}
