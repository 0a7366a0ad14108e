// The messages of the subscriber socket that are not the replica's: calls and their answers.

import { StreamError, errorOfAnswer } from "./errors.js";

/** A frame of the server, as far as it has to be told apart here. */
export type Incoming =
  /** For the replica, unparsed: what items are, and errors about subscriptions. */
  | { readonly kind: "replica" }
  | { readonly kind: "result"; readonly id: string; readonly answer: Answer }
  | { readonly kind: "invalid"; readonly error: StreamError };

/** The answer of a call. */
export type Answer = { readonly result: unknown } | { readonly error: StreamError };

/** How the frames begin that make up nearly all of the traffic; they are not parsed twice. */
const STREAM_START = '{"type":"stream"';
const SHOWN_LENGTH = 200;

/** What `text` is. Never throws. */
export function readFrame(text: string): Incoming {
  if (text.startsWith(STREAM_START)) return { kind: "replica" };
  let frame: unknown;
  try {
    frame = JSON.parse(text);
  } catch (error) {
    return invalid("a frame is not JSON", text, error);
  }
  if (typeof frame !== "object" || frame === null) return invalid("a frame is not an object", text);
  const { type, id, result, error } = frame as Record<string, unknown>;
  if (type === "stream" || type === "error") return { kind: "replica" };
  if (type !== "result") return invalid("a frame has no type that is known", text);
  if (typeof id !== "string") return invalid("a result has no `id`", text);
  return { kind: "result", id, answer: error === undefined || error === null ? { result } : { error: errorOfAnswer(error) } };
}

function invalid(message: string, text: string, cause?: unknown): Incoming {
  const shown = text.length > SHOWN_LENGTH ? `${text.slice(0, SHOWN_LENGTH)}…` : text;
  return { kind: "invalid", error: new StreamError("protocol_error", `${message}: ${shown}`, {}, cause) };
}

/** Text of a call; `data` is the JSON text of the input. */
export function callText(id: string, functionId: string, data: string): string {
  return `{"type":"call","id":${JSON.stringify(id)},"function_id":${JSON.stringify(functionId)},"data":${data}}`;
}

/** Text of the message that ends a subscription. */
export function leaveText(subscriptionId: string, streamName: string, groupId: string): string {
  return JSON.stringify({ type: "leave", data: { subscriptionId, streamName, groupId } });
}

/** The text of a function's input with more members; `data` is the text of an object that has some. */
export function withMembers(data: string, members: Readonly<Record<string, unknown>>): string {
  return `${data.slice(0, -1)},${JSON.stringify(members).slice(1)}`;
}

/** UTF-8 bytes of `text`, exactly where it matters for `max`. */
export function isLongerThan(text: string, max: number): boolean {
  // A UTF-16 unit is at most three bytes.
  return text.length * 3 > max && (text.length > max || new TextEncoder().encode(text).length > max);
}
