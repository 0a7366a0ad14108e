// What the close codes of a connection mean, and which of them say: do not come back.

import { StreamError } from "./errors.js";

interface Meaning {
  readonly code: string;
  readonly message: string;
  readonly isFinal?: true;
}

const MEANINGS: Readonly<Record<number, Meaning>> = {
  1001: { code: "server_stops", message: "the server stops" },
  1002: { code: "protocol_error", message: "the server could not read the connection", isFinal: true },
  1007: { code: "protocol_error", message: "the server got text that is not UTF-8", isFinal: true },
  1008: { code: "forbidden", message: "the server does not want this client", isFinal: true },
  1009: { code: "message_too_large", message: "a message was larger than the server takes" },
  1012: { code: "server_stops", message: "the server restarts" },
  1013: { code: "server_busy", message: "the server cannot serve now" },
  4001: { code: "auth_expired", message: "the token has expired" },
  4003: { code: "forbidden", message: "the server does not let this client in", isFinal: true },
  4008: { code: "slow_consumer", message: "this client did not keep up" },
  4029: { code: "rate_limited", message: "this client sent too much in too short a time" },
};

/** Closed with 4001: only a new token helps. */
export const AUTH_EXPIRED = 4001;
/** Closed with 1009: one of the messages that were not answered yet was too large. */
export const MESSAGE_TOO_LARGE = 1009;

/** Why an open connection ended. */
export function closeError(closeCode: number, reason: string): StreamError {
  const meaning = MEANINGS[closeCode] ?? { code: "connection_lost", message: "the connection was lost" };
  const text = reason === "" ? meaning.message : `${meaning.message} (${reason})`;
  return new StreamError(meaning.code, text, { closeCode });
}

/** Whether a connection that ended so should not be tried again. */
export const isFinalClose = (closeCode: number): boolean => MEANINGS[closeCode]?.isFinal === true;
