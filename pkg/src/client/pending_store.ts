// Where pending mutations outlive the page: the interface of a store, and what is kept in it.

import type { FunctionId } from "./values.js";

/** Mutations of one secret client to one group. Only its owner, one tab, sends them; if that is gone, another takes it over. */
export interface StoredQueue {
  /** The secret by which the server knows who sends. */
  readonly client: string;
  readonly stream: string;
  readonly group: string;
  /** The tab that sends. */
  readonly owner: string;
  /** Unix milliseconds at which the owner was last known to live. */
  readonly aliveMs: number;
}

/** One mutation that the server may not have taken yet. */
export interface StoredMutation {
  readonly client: string;
  readonly seq: number;
  readonly functionId: FunctionId;
  /** JSON text of the function's input, without `mutation`. */
  readonly data: string;
  /** Whether it may have reached the server. */
  readonly wasSent: boolean;
}

/**
 * Storage of pending mutations that survives a reload, like {@link indexedDbStore}. Each method is one transaction over queues and
 * mutations, seen by all tabs; a rejection means that nothing was changed.
 */
export interface PendingStore {
  /** Names what tabs share: those with stores of the same name see each other's queues. */
  readonly name: string;
  /** Adds mutations to the queue, and the queue where it is not there. Gives `false`, and adds nothing, where it has another owner. */
  add(queue: StoredQueue, mutations: readonly StoredMutation[]): Promise<boolean>;
  /** Marks as sent what is still there and still belongs to `owner`; gives the `seq` of those. Nothing else may be sent. */
  markSent(client: string, owner: string, seqs: readonly number[]): Promise<readonly number[]>;
  /** Removes mutations, and the queue where none is left. What is not there is no error. */
  remove(client: string, seqs: readonly number[]): Promise<void>;
  /** Puts a queue and its mutations in the place of another, if that still belongs to `queue.owner`; otherwise gives `false`. */
  replace(client: string, queue: StoredQueue, mutations: readonly StoredMutation[]): Promise<boolean>;
  queues(): Promise<readonly StoredQueue[]>;
  /** The mutations of a queue in order of `seq`. */
  mutations(client: string): Promise<readonly StoredMutation[]>;
  /** Gives the queue to another owner if it still is as `known`; `null` where it is not. */
  adopt(known: StoredQueue, owner: string, aliveMs: number): Promise<readonly StoredMutation[] | null>;
  /** Says that the owner lives. */
  touch(owner: string, aliveMs: number): Promise<void>;
  close(): Promise<void>;
}
