// What `iii-stream` exports of the client.

export type { BackoffOptions } from "./backoff.js";
export type { Token, TokenRequest, WebSocketClass, WebSocketLike } from "./connection.js";
export { StreamError, type StreamErrorDetails, rejected } from "./errors.js";
export type { GroupView } from "./group_view.js";
export { type IndexedDbFactory, indexedDbStore } from "./indexed_db.js";
export type { ItemView } from "./item_view.js";
export { memoryStore } from "./memory_store.js";
export type { Schedule } from "./notifier.js";
export type { StreamClientOptions } from "./options.js";
export type { PendingStore, StoredMutation, StoredQueue } from "./pending_store.js";
export { type Rejection, StreamClient } from "./stream_client.js";
export type { SendFunction } from "./transports.js";
export type {
  Condition, ConnectionStatus, EditOptions, FunctionId, GroupSnapshot, ItemSnapshot, Mutation, OutgoingMutation, Prediction,
  SetOptions, Settled, StreamEvent, StreamItem, UpdateOptions, ViewStatus,
} from "./values.js";
