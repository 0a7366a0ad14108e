// Calls that the application makes itself: they wait for a connection, and have a time limit.

import type { CallLane } from "./call_lane.js";
import { StreamError } from "./errors.js";
import type { Answer } from "./frames.js";

interface DirectCall {
  readonly functionId: string;
  readonly data: string;
  readonly settle: (answer: Answer) => void;
}

/** Functions that change nothing: after a lost connection they are simply called again. */
const READS: ReadonlySet<string> = new Set(["stream::get", "stream::list", "stream::list_groups", "stream::list_all"]);

export class DirectCalls {
  readonly #lane: CallLane;
  readonly #openMax: number;
  readonly #timeoutMs: number;
  readonly #waiting: DirectCall[] = [];
  readonly #open = new Set<(error: StreamError) => void>();

  constructor(lane: CallLane, openMax: number, timeoutMs: number) {
    this.#lane = lane;
    this.#openMax = openMax;
    this.#timeoutMs = timeoutMs;
  }

  get hasOpen(): boolean {
    return this.#open.size > 0;
  }

  get hasWaiting(): boolean {
    return this.#waiting.length > 0;
  }

  call(functionId: string, data: string): Promise<unknown> {
    if (this.#open.size >= this.#openMax) {
      return Promise.reject(new StreamError("too_many_calls", `${this.#openMax} calls are open already (callsMax)`));
    }
    return new Promise((resolve, reject) => {
      const end = (): void => {
        clearTimeout(timer);
        this.#open.delete(fail);
        const at = this.#waiting.indexOf(call);
        if (at >= 0) this.#waiting.splice(at, 1);
      };
      const fail = (error: StreamError): void => {
        end();
        reject(error);
      };
      const call: DirectCall = {
        functionId,
        data,
        settle: (answer) => {
          if ("error" in answer) {
            fail(answer.error);
            return;
          }
          end();
          resolve(answer.result);
        },
      };
      const timer = setTimeout(() => {
        fail(new StreamError("call_timeout", `${functionId} was not answered within ${this.#timeoutMs} ms`));
      }, this.#timeoutMs);
      this.#open.add(fail);
      this.#waiting.push(call);
      this.pump();
    });
  }

  /** Sends what waits. */
  pump(): void {
    while (this.#lane.room > 0) {
      const call = this.#waiting.shift();
      if (call === undefined) return;
      this.#lane.call(call.functionId, call.data, (answer) => {
        const isLost = "error" in answer && answer.error.code === "connection_lost";
        if (isLost && READS.has(call.functionId)) this.#waiting.push(call);
        else call.settle(answer);
      });
    }
  }

  /** Ends all calls with an error. */
  fail(error: StreamError): void {
    for (const fail of [...this.#open]) fail(error);
  }
}
