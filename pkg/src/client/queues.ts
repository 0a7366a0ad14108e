// The mutation queues of a client, one per group, and in which turn they may send.

import type { BackoffOptions } from "./backoff.js";
import type { StreamError } from "./errors.js";
import { MutationQueue, type QueueUser } from "./mutation_queue.js";
import { QueueSender, type Transport } from "./queue_sender.js";
import type { Confirmed } from "./replica.js";

interface Lane {
  readonly queue: MutationQueue;
  readonly sender: QueueSender;
}

/** Groups without pending mutations whose identity is kept for the next edit; beyond it the longest unused is forgotten. */
const IDLE_QUEUES_MAX = 1_000;

export class Queues {
  readonly #user: QueueUser;
  readonly #transport: Transport;
  readonly #backoff: BackoffOptions;
  readonly #counted: () => void;
  readonly #lanes = new Map<string, Lane>();
  /** Those without, the longest unused first. */
  readonly #idle = new Set<string>();
  /** Those with pending mutations; the one whose turn it is first. */
  readonly #busy = new Set<Lane>();
  isReady = false;

  /** `counted` hears that one more or less is pending. */
  constructor(user: QueueUser, transport: Transport, backoff: BackoffOptions, counted: () => void) {
    this.#user = user;
    this.#transport = transport;
    this.#backoff = backoff;
    this.#counted = counted;
  }

  /** Pending mutations of all groups. */
  get size(): number {
    let size = 0;
    for (const { queue } of this.#busy) size += queue.size;
    return size;
  }

  /** The first pending mutation's group and item. */
  get first(): { readonly stream: string; readonly group: string; readonly itemId: string | null } | undefined {
    const [lane] = this.#busy;
    return lane && { stream: lane.queue.stream, group: lane.queue.group, itemId: lane.queue.list[0]?.itemId ?? null };
  }

  of(stream: string, group: string): MutationQueue {
    const key = JSON.stringify([stream, group]);
    let lane = this.#lanes.get(key);
    if (lane === undefined) {
      const queue = new MutationQueue(stream, group, this.#user, () => this.#count(key));
      lane = { queue, sender: new QueueSender(queue, this.#transport, () => this.isReady, this.#backoff) };
      this.#lanes.set(key, lane);
      this.#rest(key);
    }
    return lane.queue;
  }

  /** Gives each queue its turn; whoever was first is last the next time. */
  pump(): void {
    for (const lane of [...this.#busy]) {
      if (this.#transport.room(0) <= 0) return;
      this.#busy.delete(lane);
      this.#busy.add(lane);
      lane.sender.pump();
    }
  }

  /** Tries at once what was put off. */
  hurry(): void {
    for (const { sender } of [...this.#busy]) sender.hurry();
  }

  showAll(): void {
    for (const { queue } of this.#busy) queue.showAll();
  }

  confirm(confirmed: Confirmed): void {
    for (const { queue } of [...this.#busy]) queue.confirm(confirmed);
  }

  async lookAfterMoved(): Promise<void> {
    for (const { queue } of [...this.#busy]) await queue.lookAfterMoved();
  }

  async close(error: (isStored: boolean) => StreamError): Promise<void> {
    for (const { sender } of this.#lanes.values()) sender.close();
    await Promise.all([...this.#lanes.values()].map(({ queue }) => queue.close(error)));
    this.#busy.clear();
  }

  #count(key: string): void {
    const lane = this.#lanes.get(key);
    if (lane === undefined) return;
    if (lane.queue.size > 0) {
      this.#busy.add(lane);
      this.#idle.delete(key);
    } else {
      this.#busy.delete(lane);
      this.#rest(key);
    }
    this.#counted();
  }

  #rest(key: string): void {
    this.#idle.delete(key);
    this.#idle.add(key);
    const [oldest] = this.#idle;
    if (this.#idle.size <= IDLE_QUEUES_MAX || oldest === undefined) return;
    this.#idle.delete(oldest);
    this.#lanes.delete(oldest);
  }
}
