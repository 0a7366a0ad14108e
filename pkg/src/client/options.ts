// What a client can be told when it is made, with units and defaults.

import type { Grant } from "../core/grants.js";
import type { BackoffOptions } from "./backoff.js";
import type { Token, WebSocketClass } from "./connection.js";
import type { Schedule } from "./notifier.js";
import type { PendingStore } from "./pending_store.js";
import type { Replica } from "./replica.js";
import type { SendFunction } from "./transports.js";

/** Options of a {@link StreamClient}. All have defaults. */
export interface StreamClientOptions {
  /** Who this is: a token, or a function that gives one. It is asked for every connection. Default: none. */
  readonly token?: Token;
  /** How the token travels: as sub-protocol `["Authorization", token]` (default), or as a parameter of the address. */
  readonly tokenVia?: "protocol" | { readonly query: string };
  /** Where pending mutations outlive the page, like `indexedDbStore("my-app")`. Default: they do not. */
  readonly storage?: PendingStore;
  /**
   * Brings mutations to your own back end instead of over the socket, one at a time and in order. There, call the function with the
   * same `data`, and give back what it gives. `throw rejected()` (or a {@link StreamError}) rolls the mutation back; anything else
   * thrown means "try again later". Each mutation takes effect once, however often it is sent.
   */
  readonly send?: SendFunction;
  /** Time that `send` has, in milliseconds. Default 60,000. */
  readonly sendTimeoutMs?: number;
  /** The class of sockets. Default: the global `WebSocket`; Node.js before 22 has none: give that of the package `ws`. */
  readonly WebSocket?: WebSocketClass;
  /** Pauses between attempts to connect, and to send what was put off. */
  readonly backoff?: BackoffOptions;
  /** When listeners are told of changes by others. Default: once per animation frame where the page is seen, else soon. */
  readonly schedule?: Schedule;
  /**
   * Whether changes may come as operations where these are shorter than the item's value; otherwise each comes with the whole value.
   * What is shown is the same. Default `true`.
   */
  readonly deltas?: boolean;
  /**
   * What the server grants this client, if the page knows: an edit that it does not is not shown, and `mutation.predicted.refused`
   * is `forbidden`. It is sent all the same: the server decides. Default: every edit is shown.
   */
  readonly grants?: readonly Grant[];
  /** How long a group or item is followed after its last listener has gone, in milliseconds. Default 1,000. */
  readonly lingerMs?: number;
  /** Calls, edits included, that are sent before the first of them is answered. The others wait their turn. Default 64. */
  readonly inFlightMax?: number;
  /** Mutations of a group that may be pending; beyond it edits are refused with `too_many_pending`. Default 10,000. */
  readonly pendingMax?: number;
  /** Calls by {@link StreamClient.call} that may be open; beyond it they are refused with `too_many_calls`. Default 1,000. */
  readonly callsMax?: number;
  /** Time for the answer of {@link StreamClient.call}, in milliseconds. Default 30,000. */
  readonly callTimeoutMs?: number;
  /** Calls within a second, below the server's `messages_per_second_max`. Default 5,000. */
  readonly callsPerSecondMax?: number;
  /** UTF-8 bytes of a message, as the server's `message_bytes_max`. Default 1 MiB. */
  readonly messageBytesMax?: number;
  /** A connection whose oldest call waits longer for its answer is given up for another one, in milliseconds. Default 60,000. */
  readonly answerTimeoutMs?: number;
  /** Time for the token function, and for the handshake, in milliseconds. Default 20,000. */
  readonly connectTimeoutMs?: number;
  /** Time for a sign of life after the network came back, in milliseconds. Default 5,000. */
  readonly probeTimeoutMs?: number;
  /** A connection that lived so long counts as a success, so that the next pause is short again, in milliseconds. Default 5,000. */
  readonly steadyMs?: number;
  /** Without Web Locks: a tab that was silent for so long is taken for gone, in milliseconds. Default 120,000. */
  readonly aliveTimeoutMs?: number;
  /** How often the storage is looked through for edits of tabs that are gone, in milliseconds. Default 20,000. */
  readonly adoptIntervalMs?: number;
  /** Makes the replica. Default: that of `iii-stream/core`, once its wasm is loaded. */
  readonly loadReplica?: () => Replica | Promise<Replica>;
}

/** Options with their defaults filled in. */
export type Settings = Required<Omit<StreamClientOptions, "token" | "storage" | "send" | "grants" | "WebSocket" | "schedule" | "loadReplica">>;

const DEFAULTS: Settings = {
  tokenVia: "protocol",
  sendTimeoutMs: 60_000,
  backoff: {},
  deltas: true,
  lingerMs: 1_000,
  inFlightMax: 64,
  pendingMax: 10_000,
  callsMax: 1_000,
  callTimeoutMs: 30_000,
  callsPerSecondMax: 5_000,
  messageBytesMax: 1_048_576,
  answerTimeoutMs: 60_000,
  connectTimeoutMs: 20_000,
  probeTimeoutMs: 5_000,
  steadyMs: 5_000,
  aliveTimeoutMs: 120_000,
  adoptIntervalMs: 20_000,
};

/** `options` over the defaults; `undefined` counts as left out. */
export function settingsOf(options: StreamClientOptions): Settings {
  const given = Object.entries(options).filter(([key, value]) => key in DEFAULTS && value !== undefined);
  return { ...DEFAULTS, ...Object.fromEntries(given) };
}
