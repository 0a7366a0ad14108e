// What one client sees of the groups and items it follows, with its own pending mutations on top.

import type { Replica as WasmReplica } from "../wasm/glue.js";
import { core } from "./module.js";

/**
 * What one client, with one connection at a time, sees of the groups and items it follows: the state that the server has
 * confirmed, and on top of it the client's own pending mutations, replayed by the server's own rules.
 *
 * `StreamClient` is made of it; use it by itself where there is a transport of its own. Everything it takes and gives is
 * JSON text, so that numbers stay as they were written. It holds memory of the wasm module until {@link Replica.free}.
 *
 * @throws {@link CoreError} of code `not_initialized` where {@link init} has not finished
 */
export class Replica {
  readonly #wasm: WasmReplica;

  constructor() {
    this.#wasm = new (core().Replica)();
  }

  /** Gives its memory back; it cannot be used any more. */
  free(): void {
    this.#wasm.free();
  }

  /**
   * Follows a group, or one item of it.
   *
   * @param subscription the subscription's id on the connection
   * @throws an error of code `subscription_exists` or `invalid_name`
   */
  open(subscription: string, stream: string, group: string, item?: string): void {
    this.#wasm.open(subscription, stream, group, item);
  }

  /** Follows it no more. */
  close(subscription: string): void {
    this.#wasm.close(subscription);
  }

  /**
   * The text of the `join` message to send now.
   *
   * @param deltas whether changes may come as operations where these are shorter; otherwise each comes with the item's whole value
   * @throws an error of code `subscription_unknown`
   */
  join(subscription: string, deltas = true): string {
    return this.#wasm.join(subscription, deltas);
  }

  /** The connection is gone. What is shown stays; snapshots that were half read are dropped. */
  disconnect(): void {
    this.#wasm.disconnect();
  }

  /**
   * Takes one frame of the connection, as it came.
   *
   * @returns JSON text of what must be heard of it beside what changed in items; `undefined` where that is nothing
   * @throws an error of code `frame_invalid` where it cannot be read: nothing changes then
   */
  receive(text: string): string | undefined {
    return this.#wasm.receive(text);
  }

  /**
   * Shows a mutation at once.
   *
   * @param client the secret of the mutation client
   * @param seq the mutation's number, from 1
   * @param functionId `stream::set`, `stream::update`, `stream::delete` or `stream::send`
   * @param data JSON text of the function's input, without `mutation`
   * @returns JSON text of what the server is expected to say, `{"opErrors":[…],"refused":{code,message}|null}`
   * @throws an error with the code of the server where the call can never be accepted: nothing is shown then
   */
  mutate(client: string, seq: number, functionId: string, data: string): string {
    return this.#wasm.mutate(client, seq, functionId, data);
  }

  /**
   * The server has taken a mutation. It stays shown until what is confirmed has come to its change.
   *
   * @param changeSeq the `seq` of the mutation's change; `undefined` where it changed nothing
   */
  acknowledge(client: string, seq: number, changeSeq?: number): void {
    this.#wasm.acknowledge(client, seq, changeSeq);
  }

  /** A mutation will never take effect, or nobody can know: it is not shown any more. */
  withdraw(client: string, seq: number): void {
    this.#wasm.withdraw(client, seq);
  }

  /** The subscriptions for which {@link Replica.changes} has something to tell. */
  dirty(): string[] {
    return this.#wasm.dirty();
  }

  /**
   * JSON text of what changed in what a subscription shows since this was asked last; all of it at first.
   *
   * @throws an error of code `subscription_unknown`
   */
  changes(subscription: string): string {
    return this.#wasm.changes(subscription);
  }
}
