// The client: one connection, any number of live groups and items, and edits that show at once.

import { Grants } from "../core/grants.js";
import { Adoption } from "./adoption.js";
import { background } from "./backoff.js";
import { CallLane } from "./call_lane.js";
import { Connection } from "./connection.js";
import { loadReplica } from "./core_replica.js";
import { DirectCalls } from "./direct_calls.js";
import { StreamError, asStreamError } from "./errors.js";
import { callText, readFrame } from "./frames.js";
import { GroupView } from "./group_view.js";
import { ItemView } from "./item_view.js";
import { type Notified, Notifier, defaultSchedule } from "./notifier.js";
import { type StreamClientOptions, settingsOf } from "./options.js";
import { onComeback } from "./page_events.js";
import { Queues } from "./queues.js";
import type { Replica } from "./replica.js";
import { StoreGuard } from "./store_guard.js";
import { Subscriptions } from "./subscriptions.js";
import { type Locks, Tab } from "./tab.js";
import { RouteTransport, SocketTransport } from "./transports.js";
import type { ConnectionStatus, FunctionId, JsonValue, Mutation } from "./values.js";
import type { View, ViewUser } from "./view.js";

/** A mutation that will never take effect, as {@link StreamClient.onRejected} tells it. */
export interface Rejection {
  readonly mutation: Mutation;
  readonly error: StreamError;
}

/** Without an answer for so long, one item is asked for: a server that takes no calls ignores them. */
const SERVER_KIND_WAIT_MS = 2_000;

/**
 * A connection to the subscriber port of iii-stream: `new StreamClient("wss://example.org/stream-socket")`. Make one per page and
 * user, and keep it.
 *
 * It connects when something is followed, called or edited, comes back by itself with what was missed, and shows edits before the
 * server has taken them.
 *
 * A server that does not speak version 2 (the existing engine) is served as far as that goes: views are live, items being told apart
 * by their member `id`; edits need the option `send`, and are refused with `unsupported_by_server` otherwise.
 */
export class StreamClient {
  readonly #options: StreamClientOptions;
  readonly #notifier: Notifier;
  readonly #connection: Connection;
  readonly #lane: CallLane;
  readonly #calls: DirectCalls;
  readonly #subscriptions: Subscriptions;
  readonly #queues: Queues;
  readonly #adoption: Adoption | undefined;
  readonly #views = new Map<string, WeakRef<View>>();
  readonly #forgotten = new FinalizationRegistry<string>((key) => {
    if (this.#views.get(key)?.deref() === undefined) this.#views.delete(key);
  });
  readonly #viewUser: ViewUser;
  readonly #listeners = new Set<() => void>();
  readonly #errorListeners = new Set<(error: StreamError) => void>();
  readonly #rejectionListeners = new Set<(rejection: Rejection) => void>();
  readonly #statusNews: Notified = { notify: () => this.#tell(this.#listeners, undefined) };
  readonly #endComeback: () => void;
  #replica: Replica | undefined;
  #grants: Grants | undefined;
  #loading: Promise<void> | undefined;
  /** Whether the server takes calls, as far as is known of this connection. */
  #takesCalls: boolean | undefined;
  #kindTimer: ReturnType<typeof setTimeout> | undefined;
  #hasLooked: boolean;
  #isClosed = false;

  /** `url`: the address of the subscriber port, like `ws://127.0.0.1:3112`. */
  constructor(url: string | URL, options: StreamClientOptions = {}) {
    const settings = settingsOf(options);
    this.#options = options;
    this.#notifier = new Notifier(options.schedule ?? defaultSchedule, (thrown) => {
      this.#problem(asStreamError(thrown, "core_unavailable"));
    });
    this.#connection = new Connection({
      ...settings,
      url: String(url),
      token: options.token,
      WebSocket: options.WebSocket ?? globalThis.WebSocket,
    }, {
      opened: () => this.#opened(),
      lost: (error) => this.#lost(error),
      ended: (reason) => {
        this.#calls.fail(reason);
        this.#subscriptions.ended(reason);
      },
      text: (text) => this.#received(text),
      statusChanged: () => this.#notifier.add(this.#statusNews),
      problem: (error) => this.#problem(error),
      // Any answer will do, and nobody offers this function.
      probe: () => (this.#takesCalls === true ? callText("probe", "iii-stream::probe", "{}") : undefined),
    });
    this.#lane = new CallLane(settings, {
      send: (text) => this.#connection.send(text),
      hasRoom: () => this.#pump(),
      isSilent: (error) => this.#connection.drop(error),
    });
    this.#calls = new DirectCalls(this.#lane, settings.callsMax, settings.callTimeoutMs);
    const client = this;
    this.#subscriptions = new Subscriptions({
      get replica() {
        return client.#replica;
      },
      get isOpen() {
        return client.#connection.isOpen;
      },
      get endedBy() {
        return client.#connection.endedBy;
      },
      notifier: this.#notifier,
      lingerMs: settings.lingerMs,
      deltas: settings.deltas,
      send: (text) => this.#connection.send(text),
      confirmed: (confirmed) => this.#queues.confirm(confirmed),
      heard: (server) => this.#heard(server),
      synced: () => this.#pump(),
      problem: (error) => this.#problem(error),
    });
    const store = options.storage === undefined ? undefined : new StoreGuard(options.storage, (error) => this.#problem(error));
    const locks = (globalThis.navigator as { readonly locks?: Locks } | undefined)?.locks;
    const tab = new Tab(store?.name ?? "", locks, settings.aliveTimeoutMs);
    const transport = options.send === undefined ? new SocketTransport(this.#lane, {
      get takesCalls() {
        return client.#takesCalls;
      },
      mayResend: (stream, group) => this.#subscriptions.mayResend(stream, group),
    }) : new RouteTransport(options.send, settings.sendTimeoutMs);
    this.#queues = new Queues({
      get replica() {
        return client.#replica;
      },
      store,
      owner: tab.owner,
      pendingMax: settings.pendingMax,
      may: (...asked) => this.#grants?.may(...asked) ?? true,
      shown: () => this.#shown(),
      changed: () => this.#subscriptions.touched(),
      rejected: (mutation, error) => this.#tell(this.#rejectionListeners, { mutation, error }),
    }, transport, settings.backoff, () => this.#notifier.add(this.#statusNews));
    this.#viewUser = {
      follow: (view) => {
        if (this.#isClosed) return;
        this.#subscriptions.follow(view);
        this.#start();
      },
      unfollow: (view) => this.#subscriptions.unfollow(view),
      changes: (view) => this.#subscriptions.changes(view),
      mutate: (view, functionId, itemId, input) => this.#mutate(view, functionId, itemId, input),
      problem: (thrown) => this.#listenerFailed(thrown),
    };
    this.#endComeback = onComeback((isNetwork) => {
      this.#connection.check(isNetwork);
      this.#queues.hurry();
    });
    this.#hasLooked = store === undefined;
    if (store !== undefined) {
      this.#adoption = new Adoption(store, tab, settings.adoptIntervalMs, {
        adopted: (stream, group, clientSecret, mutations) => {
          this.#queues.of(stream, group).adopt(clientSecret, mutations);
          this.#start();
        },
        looked: () => {
          this.#hasLooked = true;
          this.#pumpWhenReady();
        },
        lookAfterMoved: () => this.#queues.lookAfterMoved(),
      });
      void this.#adoption.start();
    }
  }

  /** A group, live while it has listeners. The same names give the same object. */
  group<Value = JsonValue>(stream: string, group: string): GroupView<Value> {
    return this.#view(JSON.stringify([stream, group]), () => new GroupView<Value>(stream, group, this.#viewUser));
  }

  /** One item, live while it has listeners. The same names give the same object. */
  item<Value = JsonValue>(stream: string, group: string, id: string): ItemView<Value> {
    return this.#view(JSON.stringify([stream, group, id]), () => new ItemView<Value>(stream, group, id, this.#viewUser));
  }

  /**
   * Calls one of the server's `stream::` functions, where that is granted, and gives its result (`undefined` where it has none). It
   * waits for a connection, unless that is closed for good. For reads; edits made so show only when the server tells of them, and
   * are not sent again.
   *
   * @throws {StreamError} (by rejection) with the server's code, `call_timeout`, `connection_lost`, `too_many_calls`,
   * `unsupported_by_server` or `closed`; with the reason of `status` while that is `closed`
   */
  async call(functionId: string, data: unknown = {}): Promise<unknown> {
    if (this.#isClosed) throw closedError();
    if (this.#takesCalls === false) throw unsupported();
    const text = jsonText(data);
    const { endedBy } = this.#connection;
    if (endedBy !== undefined) throw endedBy;
    this.#start();
    return this.#calls.call(functionId, text);
  }

  /** How the connection stands. The same object as long as nothing changes. */
  get status(): ConnectionStatus {
    return this.#connection.status;
  }

  /** How many mutations have been made, or found in the storage, and not been settled yet. */
  get pending(): number {
    return this.#queues.size;
  }

  /** Calls `listener` when `status` or `pending` may have changed. Gives what ends that. */
  subscribe(listener: () => void): () => void {
    return listen(this.#listeners, listener);
  }

  /**
   * Calls `listener` with what goes wrong beside the calls of the application: `protocol_error`, `storage_failed`, `invalid_token`,
   * `listener_failed`, `core_unavailable`, `grants_invalid`. Where nobody listens it is written to the console. Gives what ends that.
   */
  onError(listener: (error: StreamError) => void): () => void {
    return listen(this.#errorListeners, listener);
  }

  /**
   * Calls `listener` with every mutation that will never take effect, or of which nobody can tell any more (`outcome_unknown`), also
   * those that an earlier page has left in the storage. Gives what ends that.
   */
  onRejected(listener: (rejection: Rejection) => void): () => void {
    return listen(this.#rejectionListeners, listener);
  }

  /**
   * Connects at once where that is waited for or was given up, for instance after a login. Views that had failed with the
   * connection load again, and what is pending is sent.
   */
  reconnect(): void {
    if (this.#isClosed) return;
    const hadEnded = this.#connection.endedBy !== undefined;
    this.#connection.reconnect();
    if (hadEnded) this.#subscriptions.begunAnew();
    this.#start();
    this.#queues.hurry();
  }

  /**
   * Ends the client: the connection closes, views become idle, open calls reject with `closed`. So do pending mutations; those whose
   * `error.details.stored` is `true` stay in the storage, and the next client that uses it sends them. Resolves when the storage has
   * everything.
   */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#endComeback();
    clearTimeout(this.#kindTimer);
    await this.#queues.close((stored) => new StreamError("closed", "the client was closed", { stored }));
    this.#calls.fail(closedError());
    this.#subscriptions.close();
    this.#connection.close(null);
    this.#adoption?.close();
    await this.#options.storage?.close().catch(() => {});
    this.#replica?.free();
    this.#replica = undefined;
    this.#grants?.free();
    this.#grants = undefined;
  }

  /** Loads the core, then connects if anything needs that. */
  #start(): void {
    // What was given up for good is taken up by `reconnect` only.
    if (this.#isClosed || this.#connection.endedBy !== undefined) return;
    if (this.#replica !== undefined) {
      if (this.#needsConnection) this.#connection.start();
      return;
    }
    const load = async (): Promise<void> => {
      try {
        const replica = await Promise.resolve().then(this.#options.loadReplica ?? loadReplica);
        if (this.#isClosed) {
          replica.free();
          return;
        }
        this.#replica = replica;
        this.#grants = this.#readGrants();
      } catch (error) {
        const failure = new StreamError("core_unavailable", `the core could not be loaded: ${asStreamError(error, "").message}`, {}, error);
        this.#loading = undefined;
        this.#problem(failure);
        this.#connection.close(failure);
        return;
      }
      this.#subscriptions.ready();
      this.#queues.showAll();
      if (this.#needsConnection) this.#connection.start();
      this.#pumpWhenReady();
    };
    this.#loading ??= load();
  }

  #readGrants(): Grants | undefined {
    const { grants } = this.#options;
    if (grants === undefined) return undefined;
    try {
      return new Grants(grants);
    } catch (error) {
      this.#problem(new StreamError("grants_invalid", `the option \`grants\` is of no use: ${asStreamError(error, "").message}`, {}, error));
      return undefined;
    }
  }

  get #needsConnection(): boolean {
    return this.#options.send === undefined || this.#subscriptions.size > 0 || this.#calls.hasWaiting;
  }

  #pumpWhenReady(): void {
    this.#queues.isReady = this.#hasLooked && this.#replica !== undefined;
    this.#pump();
  }

  #pump(): void {
    this.#calls.pump();
    this.#queues.pump();
    if (this.#connection.isOpen && this.#takesCalls === undefined && (this.pending > 0 || this.#calls.hasOpen)) this.#waitForKind();
  }

  #opened(): void {
    // Another server may answer than before.
    this.#takesCalls = undefined;
    this.#subscriptions.opened();
    this.#lane.opened();
    this.#pump();
  }

  #lost(error: StreamError): void {
    clearTimeout(this.#kindTimer);
    this.#kindTimer = undefined;
    this.#lane.lost(error);
    this.#subscriptions.lost();
  }

  #received(text: string): void {
    const frame = readFrame(text);
    if (frame.kind === "replica") {
      // What cannot be read may be a change that is missing from now on: the server tells it again after a reconnect.
      if (!this.#subscriptions.frame(text)) this.#connection.drop(new StreamError("protocol_error", "a frame could not be read"));
    } else if (frame.kind === "result") {
      this.#heard("version2");
      this.#lane.answer(frame.id, frame.answer);
    } else {
      this.#problem(frame.error);
    }
  }

  #heard(server: "version1" | "version2" | "no_calls"): void {
    const takesCalls = server === "version2";
    // That it syncs in version 2 is no proof that it takes calls; that it does not know them is one that it does not.
    if (this.#takesCalls === takesCalls || (this.#takesCalls === false && server === "version2")) return;
    this.#takesCalls = takesCalls;
    clearTimeout(this.#kindTimer);
    this.#kindTimer = undefined;
    if (!takesCalls) this.#calls.fail(unsupported());
    this.#pump();
  }

  /** A server that ignores calls has to be asked something that it answers. */
  #waitForKind(): void {
    this.#kindTimer ??= background(setTimeout(() => {
      this.#kindTimer = undefined;
      const first = this.#queues.first;
      if (this.#takesCalls !== undefined || !this.#connection.isOpen || this.#subscriptions.size > 0) return;
      this.#subscriptions.ask(first?.stream ?? "-", first?.group ?? "-", first?.itemId ?? "-");
    }, SERVER_KIND_WAIT_MS));
  }

  #mutate(view: View, functionId: FunctionId, itemId: string | null, input: Readonly<Record<string, unknown>>): Mutation {
    const queue = this.#queues.of(view.stream, view.group);
    const item = functionId === "stream::send" ? { id: itemId ?? undefined } : { item_id: itemId };
    if (this.#isClosed) return queue.refuseNew(functionId, itemId, closedError());
    let data: string;
    try {
      data = JSON.stringify({ stream_name: view.stream, group_id: view.group, ...item, ...input });
    } catch (error) {
      return queue.refuseNew(functionId, itemId, asStreamError(error, "deserialization_error"));
    }
    this.#start();
    return queue.add(functionId, itemId, data);
  }

  /** An own edit: listeners are told before the call that makes it returns. */
  #shown(): void {
    this.#subscriptions.touched();
    this.#notifier.flush();
  }

  #view<V extends View>(key: string, make: () => V): V {
    const known = this.#views.get(key)?.deref();
    if (known !== undefined) return known as V;
    const view = make();
    this.#views.set(key, new WeakRef<View>(view));
    this.#forgotten.register(view, key);
    return view;
  }

  #listenerFailed(thrown: unknown): void {
    this.#problem(new StreamError("listener_failed", `a listener threw: ${asStreamError(thrown, "").message}`, {}, thrown));
  }

  #problem(error: StreamError): void {
    if (this.#errorListeners.size > 0) {
      this.#tell(this.#errorListeners, error);
    } else if (error.code === "listener_failed" && typeof reportError === "function") {
      reportError(error.cause);
    } else {
      console.error(error);
    }
  }

  #tell<Event>(listeners: ReadonlySet<(event: Event) => void>, event: Event): void {
    for (const listener of [...listeners]) {
      try {
        listener(event);
      } catch (error) {
        // A listener for errors that fails itself must not be told of that again.
        if (listeners === (this.#errorListeners as ReadonlySet<unknown>)) console.error(error);
        else this.#listenerFailed(error);
      }
    }
  }
}

function listen<Event>(listeners: Set<(event: Event) => void>, listener: (event: Event) => void): () => void {
  const own = (event: Event): void => listener(event);
  listeners.add(own);
  return () => {
    listeners.delete(own);
  };
}

function jsonText(data: unknown): string {
  try {
    return JSON.stringify(data) ?? "null";
  } catch (error) {
    throw asStreamError(error, "deserialization_error");
  }
}

const closedError = (): StreamError => new StreamError("closed", "the client was closed");
const unsupported = (): StreamError => new StreamError("unsupported_by_server", "this server takes no calls from clients");
