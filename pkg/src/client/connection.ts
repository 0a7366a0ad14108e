// The one socket of a client: connecting with a token, coming back after growing pauses, and noticing when it is dead.

import { Backoff, type BackoffOptions, background, monotonicMs, withinMs } from "./backoff.js";
import { AUTH_EXPIRED, closeError, isFinalClose } from "./close_codes.js";
import { StreamError, asStreamError } from "./errors.js";
import type { ConnectionStatus } from "./values.js";

/** The part of a browser's `WebSocket` that is used; that of the package `ws` fits as well. */
export interface WebSocketLike {
  readonly readyState: number;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  send(text: string): void;
  close(code?: number, reason?: string): void;
}

/** A class that makes sockets. */
export type WebSocketClass = new (url: string, protocols?: string[]) => WebSocketLike;

/** Why a token is asked for. */
export interface TokenRequest {
  /**
   * `connect`: for a new connection; a token that is kept and still good may be given. `expired`: the server closed the last one
   * because its token ran out. `refused`: several attempts in a row failed before the connection was up, which is all that a
   * browser tells of a token that the server does not accept.
   */
  readonly reason: "connect" | "expired" | "refused";
}

/** A token, or what gives one: asked for every connection. */
export type Token = string | ((request: TokenRequest) => string | Promise<string>);

export interface ConnectionOptions {
  readonly url: string;
  readonly token?: Token | undefined;
  readonly tokenVia: "protocol" | { readonly query: string };
  readonly WebSocket: WebSocketClass | undefined;
  readonly backoff: BackoffOptions;
  /** A connection that lived so long counts as a success. */
  readonly steadyMs: number;
  /** Time for the token function, and again for the handshake. */
  readonly connectTimeoutMs: number;
  /** Time for a sign of life after the network came back. */
  readonly probeTimeoutMs: number;
}

/** Whoever uses the connection. */
export interface ConnectionUser {
  opened(): void;
  /** The open connection is gone. */
  lost(error: StreamError): void;
  /** It does not come back by itself. Comes after `lost`. */
  ended(reason: StreamError): void;
  text(text: string): void;
  statusChanged(): void;
  problem(error: StreamError): void;
  /** A message that any live server answers; `undefined`: there is none for this server. */
  probe(): string | undefined;
}

/** Failed handshakes in a row after which the token is suspected. */
const REFUSED_HANDSHAKES = 2;
/** A frame so short a time ago is sign of life enough. */
const FRESH_MS = 1_000;
const OPEN = 1;

const IDLE: ConnectionStatus = { state: "idle", reason: null, attempt: 0, nextAttemptAt: null };

export class Connection {
  readonly #options: ConnectionOptions;
  readonly #user: ConnectionUser;
  readonly #backoff: Backoff;
  #status: ConnectionStatus = IDLE;
  #socket: WebSocketLike | undefined;
  /** Counts connects, so that an answer for a former one is recognized. */
  #round = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #steadyTimer: ReturnType<typeof setTimeout> | undefined;
  #probeTimer: ReturnType<typeof setTimeout> | undefined;
  #handshakesFailed = 0;
  #hasExpired = false;
  /** That the token function fails was told since the last connection. */
  #hasToldOfToken = false;
  #heardAtMs = 0;

  constructor(options: ConnectionOptions, user: ConnectionUser) {
    this.#options = options;
    this.#user = user;
    this.#backoff = new Backoff(options.backoff);
  }

  get status(): ConnectionStatus {
    return this.#status;
  }

  get isOpen(): boolean {
    return this.#status.state === "open";
  }

  /** Why it is closed for good; `undefined` where it is not. */
  get endedBy(): StreamError | undefined {
    return this.#status.state === "closed" ? this.#status.reason ?? undefined : undefined;
  }

  /** Connects where nobody has yet. */
  start(): void {
    if (this.#status.state === "idle") this.#connect();
  }

  /** Connects now, whatever was waited for; an open connection stays. */
  reconnect(): void {
    if (this.#status.state === "waiting" || this.#status.state === "closed") {
      this.#backoff.succeeded();
      this.#connect();
    }
  }

  /** Sends text where there is a connection. */
  send(text: string): boolean {
    const socket = this.#socket;
    if (!this.isOpen || socket?.readyState !== OPEN) return false;
    try {
      socket.send(text);
      return true;
    } catch (error) {
      this.drop(asStreamError(error, "connection_lost"));
      return false;
    }
  }

  /** The network, or only the page, has come back: tries at once, or sees whether the connection still lives. */
  check(isNetwork: boolean): void {
    if (this.#status.state === "waiting") {
      this.#connect();
      return;
    }
    if (!this.isOpen || this.#probeTimer !== undefined || monotonicMs() - this.#heardAtMs < FRESH_MS) return;
    const probe = this.#user.probe();
    if (probe === undefined) {
      if (isNetwork) this.drop(new StreamError("connection_lost", "the network has changed"));
      return;
    }
    this.#probeTimer = setTimeout(() => {
      this.drop(new StreamError("connection_lost", `no sign of life for ${this.#options.probeTimeoutMs} ms`));
    }, this.#options.probeTimeoutMs);
    this.send(probe);
  }

  /** Gives up the present connection and tries again after a pause. */
  drop(error: StreamError): void {
    if (this.#socket === undefined) return;
    this.#ended(error, false);
  }

  /** Ends for good; `reconnect` begins anew. */
  close(reason: StreamError | null): void {
    this.#ended(reason, true);
  }

  #connect(): void {
    const options = this.#options;
    const round = (this.#round += 1);
    clearTimeout(this.#timer);
    this.#setStatus({ state: "connecting", reason: this.#status.reason, attempt: this.#backoff.failures, nextAttemptAt: null });
    this.#timer = setTimeout(() => {
      if (round === this.#round) this.#failed(new StreamError("connection_refused", `no connection within ${options.connectTimeoutMs} ms`));
    }, options.connectTimeoutMs);
    this.#askToken().then(
      (token) => {
        if (round === this.#round) this.#openSocket(token, round);
      },
      (error: unknown) => {
        if (round !== this.#round) return;
        const failure = error instanceof StreamError && error.code === "invalid_token" ? error
          : new StreamError("invalid_token", `the token function failed: ${error instanceof Error ? error.message : String(error)}`, {}, error);
        // Off line it fails with every attempt.
        if (!this.#hasToldOfToken) this.#user.problem(failure);
        this.#hasToldOfToken = true;
        this.#failed(failure);
      },
    );
  }

  async #askToken(): Promise<string | undefined> {
    const { token, connectTimeoutMs } = this.#options;
    if (typeof token !== "function") return token;
    const isRefused = this.#handshakesFailed >= REFUSED_HANDSHAKES;
    const reason = this.#hasExpired ? "expired" : isRefused ? "refused" : "connect";
    const given: unknown = await withinMs(Promise.resolve(token({ reason })), connectTimeoutMs, () => (
      new StreamError("invalid_token", `the token function gave nothing within ${connectTimeoutMs} ms`)));
    if (typeof given !== "string") throw new StreamError("invalid_token", `the token must be a string, got ${typeof given}`);
    return given;
  }

  #openSocket(token: string | undefined, round: number): void {
    const { url, tokenVia, WebSocket } = this.#options;
    if (WebSocket === undefined) {
      const failure = new StreamError("connection_refused", "there is no global WebSocket here: give one as the option `WebSocket`");
      this.#user.problem(failure);
      this.close(failure);
      return;
    }
    let socket: WebSocketLike;
    try {
      socket = token !== undefined && tokenVia === "protocol"
        ? new WebSocket(url, ["Authorization", token])
        : new WebSocket(token === undefined || tokenVia === "protocol" ? url : withQuery(url, tokenVia.query, token));
    } catch (error) {
      // The address, or a token that cannot be a sub-protocol. Another token may do.
      const failure = asStreamError(error, token === undefined ? "connection_refused" : "invalid_token");
      this.#user.problem(failure);
      this.#failed(failure);
      return;
    }
    this.#socket = socket;
    const isCurrent = (): boolean => round === this.#round && socket === this.#socket;
    socket.onopen = () => {
      if (isCurrent()) this.#opened();
    };
    socket.onmessage = (event: { readonly data: unknown }) => {
      if (isCurrent()) this.#heard(event.data);
    };
    // A close follows every error and says more.
    socket.onerror = () => {};
    socket.onclose = (event: { readonly code?: number; readonly reason?: string }) => {
      if (!isCurrent()) return;
      const closeCode = event.code ?? 1006;
      if (!this.isOpen) {
        this.#handshakesFailed += 1;
        this.#failed(new StreamError("connection_refused", "the server cannot be reached, or does not let this client in", { closeCode }));
        return;
      }
      this.#hasExpired = closeCode === AUTH_EXPIRED;
      this.#ended(closeError(closeCode, event.reason ?? ""), isFinalClose(closeCode));
    };
  }

  #opened(): void {
    clearTimeout(this.#timer);
    this.#handshakesFailed = 0;
    this.#hasExpired = false;
    this.#hasToldOfToken = false;
    this.#heardAtMs = monotonicMs();
    // A server that lets in and throws out at once must not be asked without pause.
    this.#steadyTimer = background(setTimeout(() => this.#backoff.succeeded(), this.#options.steadyMs));
    this.#setStatus({ state: "open", reason: null, attempt: 0, nextAttemptAt: null });
    this.#user.opened();
  }

  #heard(data: unknown): void {
    this.#heardAtMs = monotonicMs();
    clearTimeout(this.#probeTimer);
    this.#probeTimer = undefined;
    if (typeof data === "string") this.#user.text(data);
    else this.#user.problem(new StreamError("protocol_error", "the server sent a binary message"));
  }

  /** An attempt led to nothing. */
  #failed(error: StreamError): void {
    this.#ended(error, false);
  }

  #ended(error: StreamError | null, isFinal: boolean): void {
    const socket = this.#socket;
    const wasOpen = this.isOpen;
    this.#round += 1;
    this.#socket = undefined;
    for (const timer of [this.#timer, this.#steadyTimer, this.#probeTimer]) clearTimeout(timer);
    this.#probeTimer = undefined;
    if (socket !== undefined) discard(socket);
    if (isFinal) {
      this.#setStatus({ state: "closed", reason: error, attempt: this.#backoff.failures, nextAttemptAt: null });
    } else {
      const pauseMs = this.#backoff.next();
      this.#timer = setTimeout(() => this.#connect(), pauseMs);
      this.#setStatus({ state: "waiting", reason: error, attempt: this.#backoff.failures, nextAttemptAt: Math.round(Date.now() + pauseMs) });
    }
    if (wasOpen) this.#user.lost(error ?? new StreamError("closed", "the client was closed"));
    if (isFinal && error !== null) this.#user.ended(error);
  }

  #setStatus(status: ConnectionStatus): void {
    this.#status = status;
    this.#user.statusChanged();
  }
}

/** Closes a socket without waiting for what it still has to say: of a dead one that may take minutes. */
function discard(socket: WebSocketLike): void {
  socket.onopen = socket.onmessage = socket.onclose = null;
  // `ws` throws an error that nobody hears.
  socket.onerror = () => {};
  try {
    socket.close(1000);
  } catch {
    // One that was never open, or is closed already, has nothing to close.
  }
}

/** `url` with one more query parameter. */
function withQuery(url: string, name: string, value: string): string {
  const [address = "", fragment] = url.split("#", 2);
  const separator = address.includes("?") ? "&" : "?";
  const query = `${encodeURIComponent(name)}=${encodeURIComponent(value)}`;
  return `${address}${separator}${query}${fragment === undefined ? "" : `#${fragment}`}`;
}
