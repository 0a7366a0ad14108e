// Calls over the socket: a bounded number in flight, each answered once, by the server or by the end of the connection.

import { background, monotonicMs } from "./backoff.js";
import { MESSAGE_TOO_LARGE } from "./close_codes.js";
import { StreamError } from "./errors.js";
import { type Answer, callText, isLongerThan } from "./frames.js";

export interface CallLaneOptions {
  /** Calls that may wait for an answer at a time. */
  readonly inFlightMax: number;
  /** UTF-8 bytes of one message. */
  readonly messageBytesMax: number;
  /** Calls within a second. */
  readonly callsPerSecondMax: number;
  /** A connection whose oldest call waits longer is given up. */
  readonly answerTimeoutMs: number;
}

export interface CallLaneUser {
  send(text: string): boolean;
  /** There is room for calls again. */
  hasRoom(): void;
  /** The server does not answer. */
  isSilent(error: StreamError): void;
}

interface Call {
  readonly answered: (answer: Answer) => void;
  readonly sentAtMs: number;
}

const SECOND_MS = 1_000;

export class CallLane {
  readonly #options: CallLaneOptions;
  readonly #user: CallLaneUser;
  readonly #calls = new Map<string, Call>();
  #isOpen = false;
  #ids = 0;
  /** After a message was too large: how many calls are sent one by one, to learn which it was. */
  #suspects = 0;
  #secondBeganMs = 0;
  #sentInSecond = 0;
  #paceTimer: ReturnType<typeof setTimeout> | undefined;
  #silenceTimer: ReturnType<typeof setTimeout> | undefined;

  constructor(options: CallLaneOptions, user: CallLaneUser) {
    this.#options = options;
    this.#user = user;
  }

  /** How many calls may be sent now. */
  get room(): number {
    if (!this.#isOpen) return 0;
    const window = this.#suspects > 0 ? 1 : this.#options.inFlightMax;
    return Math.max(0, Math.min(window - this.#calls.size, this.#leftInSecond()));
  }

  /** Sends a call. Where it cannot be sent, the answer is an error as well; `answered` is never called from within. */
  call(functionId: string, data: string, answered: (answer: Answer) => void): void {
    this.#ids += 1;
    const id = String(this.#ids);
    const text = callText(id, functionId, data);
    const { messageBytesMax } = this.#options;
    if (isLongerThan(text, messageBytesMax)) {
      const error = new StreamError("message_too_large", `the call is longer than the ${messageBytesMax} bytes of a message`);
      queueMicrotask(() => answered({ error }));
      return;
    }
    this.#calls.set(id, { answered, sentAtMs: monotonicMs() });
    this.#sentInSecond += 1;
    this.#watch();
    // Where it is not sent the connection has just gone, and `lost` answers.
    this.#user.send(text);
  }

  /** Whether a result with this id was waited for; it is handed over. */
  answer(id: string, answer: Answer): boolean {
    const call = this.#calls.get(id);
    if (call === undefined) return false;
    this.#calls.delete(id);
    if (this.#suspects > 0) this.#suspects -= 1;
    call.answered(answer);
    if (this.#isOpen) this.#user.hasRoom();
    return true;
  }

  opened(): void {
    this.#isOpen = true;
    this.#sentInSecond = 0;
  }

  /** The connection is gone: what became of the open calls is not known. */
  lost(reason: StreamError): void {
    this.#isOpen = false;
    clearTimeout(this.#paceTimer);
    clearTimeout(this.#silenceTimer);
    this.#paceTimer = this.#silenceTimer = undefined;
    const open = [...this.#calls.values()];
    this.#calls.clear();
    let error = new StreamError("connection_lost", `the connection ended before the answer came: ${reason.message}`, reason.details);
    if (reason.details.closeCode === MESSAGE_TOO_LARGE) {
      if (open.length === 1) error = reason;
      this.#suspects = open.length > 1 ? open.length : 0;
    }
    for (const call of open) call.answered({ error });
  }

  #leftInSecond(): number {
    const now = monotonicMs();
    if (now - this.#secondBeganMs >= SECOND_MS) {
      this.#secondBeganMs = now;
      this.#sentInSecond = 0;
    }
    const left = this.#options.callsPerSecondMax - this.#sentInSecond;
    if (left <= 0) {
      this.#paceTimer ??= setTimeout(() => {
        this.#paceTimer = undefined;
        this.#user.hasRoom();
      }, this.#secondBeganMs + SECOND_MS - now);
    }
    return left;
  }

  /** Looks from time to time whether the oldest call was forgotten. */
  #watch(): void {
    const { answerTimeoutMs } = this.#options;
    this.#silenceTimer ??= background(setTimeout(() => {
      this.#silenceTimer = undefined;
      const oldest = this.#calls.values().next().value;
      if (oldest === undefined) return;
      if (monotonicMs() - oldest.sentAtMs >= answerTimeoutMs) {
        this.#user.isSilent(new StreamError("call_timeout", `the server did not answer a call within ${answerTimeoutMs} ms`));
      } else {
        this.#watch();
      }
    }, answerTimeoutMs));
  }
}
