// What is followed over the connection: joins and leaves, and what frames mean for the views.

import { Backoff, background, monotonicMs } from "./backoff.js";
import { StreamError, asStreamError } from "./errors.js";
import { leaveText } from "./frames.js";
import type { Notified, Notifier } from "./notifier.js";
import type { Confirmed, Received, Replica, ViewChanges } from "./replica.js";
import { IDLE, type Standing, type View } from "./view.js";

export interface SubscriptionsUser {
  /** `undefined` until the core is loaded. */
  readonly replica: Replica | undefined;
  readonly isOpen: boolean;
  /** Why there will be no connection any more. */
  readonly endedBy: StreamError | undefined;
  readonly notifier: Notifier;
  readonly lingerMs: number;
  /** Whether changes may come as operations. */
  readonly deltas: boolean;
  send(text: string): boolean;
  confirmed(confirmed: Confirmed): void;
  /** What kind of server answers. */
  heard(server: "version1" | "version2" | "no_calls"): void;
  /** A group may have come to where its mutations can be sent again. */
  synced(): void;
  problem(error: StreamError): void;
}

interface Target {
  readonly stream: string;
  readonly group: string;
  readonly id: string | null;
}

interface Subscription extends Target {
  readonly name: string;
  /** `undefined`: only asked to learn what the server is. */
  readonly view: View | undefined;
  standing: Standing;
  /** Whether the present connection has said how it stands. */
  isAnswered: boolean;
  /** Whether there was ever a complete state to show. */
  wasLive: boolean;
  /** Since when that is waited for, over several connections if need be. */
  askedAtMs: number | undefined;
  lingering: ReturnType<typeof setTimeout> | undefined;
  rejoining: ReturnType<typeof setTimeout> | undefined;
  readonly rejoins: Backoff;
  rejoinedAtMs: number;
}

/** Mutations wait no longer for the sync of their group: sending them again is only superfluous. */
const SYNC_WAIT_MS = 5_000;
/** Joins at a time: a server takes 10,000 messages per second. */
const JOINS_MAX = 4_000;
const JOIN_PAUSE_MS = 1_000;
/** Without a rejoin for so long, the next one is immediate again. A sync is no success: what follows it may not fit either. */
const REJOIN_CALM_MS = 60_000;

const LOADING: Standing = { status: "loading", error: null };
const LIVE: Standing = { status: "live", error: null };
const STALE: Standing = { status: "stale", error: null };

export class Subscriptions implements Notified {
  readonly #user: SubscriptionsUser;
  readonly #byName = new Map<string, Subscription>();
  readonly #byView = new Map<View, Subscription>();
  /** Those with changes that have not been read. */
  readonly #dirty = new Set<string>();
  /** Those with changes, read or not, that the listeners have not been told of. */
  readonly #untold = new Set<string>();
  #mayBeDirty = false;
  #names = 0;
  #joining: ReturnType<typeof setTimeout> | undefined;
  #waiting: ReturnType<typeof setTimeout> | undefined;

  constructor(user: SubscriptionsUser) {
    this.#user = user;
  }

  get size(): number {
    return this.#byName.size;
  }

  follow(view: View): void {
    const followed = this.#byView.get(view);
    if (followed !== undefined) {
      clearTimeout(followed.lingering);
      followed.lingering = undefined;
      return;
    }
    const subscription = this.#add(view, view);
    this.#byView.set(view, subscription);
    view.stand(LOADING);
    this.#begin(subscription);
    const { endedBy } = this.#user;
    if (endedBy !== undefined) this.#fail(subscription, endedBy);
  }

  unfollow(view: View): void {
    const subscription = this.#byView.get(view);
    if (subscription === undefined) return;
    // A component that is replaced by another of the same group costs nothing.
    subscription.lingering = background(setTimeout(() => this.#end(subscription), this.#user.lingerMs));
  }

  /** Asks for one item, only to learn from the answer what kind of server this is. */
  ask(stream: string, group: string, id: string): void {
    this.#begin(this.#add({ stream, group, id }, undefined));
  }

  /** What changed in a view since it was last asked for. */
  changes(view: View): ViewChanges | undefined {
    const { replica } = this.#user;
    const subscription = this.#byView.get(view);
    if (replica === undefined || subscription === undefined) return undefined;
    this.#readDirty(replica);
    return this.#dirty.delete(subscription.name) ? JSON.parse(replica.changes(subscription.name)) as ViewChanges : undefined;
  }

  /** The replica may show something else than before; listeners are told with the next flush. */
  touched(): void {
    this.#mayBeDirty = true;
    this.#user.notifier.add(this);
  }

  /** Tells the listeners of every view that changed. */
  notify(): void {
    const { replica } = this.#user;
    if (replica === undefined) return;
    this.#readDirty(replica);
    const names = [...this.#untold];
    this.#untold.clear();
    for (const name of names) this.#byName.get(name)?.view?.notify();
  }

  /** The core is loaded. */
  ready(): void {
    for (const subscription of this.#byName.values()) this.#begin(subscription);
  }

  opened(): void {
    this.#waiting = background(setTimeout(() => this.#user.synced(), SYNC_WAIT_MS));
    this.#joinAll([...this.#byName.values()]);
  }

  lost(): void {
    clearTimeout(this.#joining);
    clearTimeout(this.#waiting);
    this.#user.replica?.disconnect();
    for (const subscription of this.#byName.values()) {
      subscription.isAnswered = false;
      clearTimeout(subscription.rejoining);
      subscription.rejoining = undefined;
      if (subscription.view === undefined) this.#end(subscription);
      else if (subscription.standing.status === "live") this.#stand(subscription, STALE);
    }
    this.touched();
  }

  /** There will be no connection any more. What is shown stays. */
  ended(reason: StreamError): void {
    for (const subscription of this.#byName.values()) this.#fail(subscription, reason);
  }

  /** After `ended`, it is tried once more. */
  begunAnew(): void {
    for (const subscription of this.#byName.values()) {
      if (!isNameless(subscription)) this.#stand(subscription, subscription.wasLive ? STALE : LOADING);
    }
  }

  /** Whether nothing that is still to come can tell what became of the mutations of a group. */
  mayResend(stream: string, group: string): boolean {
    const now = monotonicMs();
    for (const { view, isAnswered, askedAtMs = now, ...one } of this.#byName.values()) {
      const isAwaited = view !== undefined && !isAnswered && now - askedAtMs < SYNC_WAIT_MS;
      if (isAwaited && one.stream === stream && one.group === group) return false;
    }
    return true;
  }

  /** Takes a frame of the server. `false`: it cannot be read, so something may be missing now. */
  frame(text: string): boolean {
    const { replica } = this.#user;
    if (replica === undefined) return true;
    let received: Received | undefined;
    try {
      const news = replica.receive(text);
      received = news === undefined ? undefined : JSON.parse(news) as Received;
    } catch (error) {
      this.#user.problem(new StreamError("protocol_error", `a frame cannot be read: ${asStreamError(error, "").message}`, {}, error));
      return false;
    }
    this.touched();
    if (received !== undefined) this.#received(received);
    return true;
  }

  close(): void {
    this.lost();
    for (const subscription of [...this.#byName.values()]) this.#end(subscription);
  }

  #received({ version1, confirmed = [], events = [], synced = [], denied = [], errors = [], rejoin = [] }: Received): void {
    if (version1 === true) this.#user.heard("version1");
    else if (synced.length > 0) this.#user.heard("version2");
    for (const one of confirmed) this.#user.confirmed(one);
    for (const { subscription, id, seq, type, data } of events) this.#byName.get(subscription)?.view?.event({ id, seq, type, data });
    for (const name of synced) this.#answered(name, LIVE);
    for (const name of denied) {
      this.#answered(name, { status: "denied", error: new StreamError("unauthorized", "the server does not let this client read it") });
    }
    for (const { subscription, code, message } of errors) {
      const error = new StreamError(code, message);
      if (code === "message.unknown_type") this.#user.heard("no_calls");
      else if (subscription === undefined) this.#user.problem(error);
      else this.#answered(subscription, { status: "failed", error });
    }
    for (const name of rejoin) this.#rejoin(name);
    if (synced.length + denied.length + errors.length > 0) this.#user.synced();
  }

  #answered(name: string, standing: Standing): void {
    const subscription = this.#byName.get(name);
    if (subscription === undefined) return;
    subscription.isAnswered = true;
    subscription.askedAtMs = undefined;
    if (standing === LIVE) subscription.wasLive = true;
    if (subscription.view === undefined) this.#end(subscription);
    else this.#stand(subscription, standing);
  }

  /** Begins a subscription anew: at once, and after growing pauses where that does not help. */
  #rejoin(name: string): void {
    const subscription = this.#byName.get(name);
    if (subscription === undefined || subscription.rejoining !== undefined) return;
    if (subscription.standing.status === "live") this.#stand(subscription, STALE);
    const now = monotonicMs();
    if (now - subscription.rejoinedAtMs >= REJOIN_CALM_MS) subscription.rejoins.succeeded();
    subscription.rejoinedAtMs = now;
    const isFirst = subscription.rejoins.failures === 0;
    const pauseMs = subscription.rejoins.next();
    if (isFirst) {
      this.#join(subscription);
      return;
    }
    subscription.rejoining = setTimeout(() => {
      subscription.rejoining = undefined;
      this.#join(subscription);
    }, pauseMs);
  }

  #add({ stream, group, id }: Target, view: View | undefined): Subscription {
    this.#names += 1;
    const name = `s${this.#names}`;
    const subscription: Subscription = {
      name, stream, group, id, view, standing: LOADING, isAnswered: false, wasLive: false, askedAtMs: undefined, lingering: undefined, rejoining: undefined, rejoins: new Backoff(), rejoinedAtMs: 0,
    };
    this.#byName.set(name, subscription);
    return subscription;
  }

  #begin(subscription: Subscription): void {
    const { replica, isOpen } = this.#user;
    if (replica === undefined) return;
    const { name, stream, group, id } = subscription;
    if (![stream, group, id ?? ""].every(isWellFormed)) {
      this.#stand(subscription, { status: "failed", error: new StreamError("invalid_name", "a name has half a surrogate pair in it") });
      return;
    }
    try {
      replica.open(name, stream, group, id ?? undefined);
    } catch (error) {
      this.#stand(subscription, { status: "failed", error: asStreamError(error, "invalid_name") });
      return;
    }
    if (isOpen) this.#join(subscription);
    this.touched();
  }

  #joinAll(subscriptions: readonly Subscription[]): void {
    for (const one of subscriptions.slice(0, JOINS_MAX)) {
      if (this.#byName.has(one.name)) this.#join(one);
    }
    const left = subscriptions.slice(JOINS_MAX);
    if (left.length > 0) this.#joining = setTimeout(() => this.#joinAll(left), JOIN_PAUSE_MS);
  }

  #join(subscription: Subscription): void {
    const { replica } = this.#user;
    if (replica === undefined || !this.#user.isOpen || isNameless(subscription)) return;
    subscription.askedAtMs ??= monotonicMs();
    this.#user.send(replica.join(subscription.name, this.#user.deltas));
  }

  #end(subscription: Subscription): void {
    const { name, stream, group, view } = subscription;
    clearTimeout(subscription.lingering);
    clearTimeout(subscription.rejoining);
    this.#byName.delete(name);
    this.#dirty.delete(name);
    this.#untold.delete(name);
    this.#user.replica?.close(name);
    if (this.#user.isOpen) this.#user.send(leaveText(name, stream, group));
    if (view === undefined) return;
    this.#byView.delete(view);
    view.clear();
    view.stand(IDLE);
    this.#user.notifier.add(view);
  }

  #fail(subscription: Subscription, error: StreamError): void {
    if (!isNameless(subscription)) this.#stand(subscription, { status: "failed", error });
  }

  #stand(subscription: Subscription, standing: Standing): void {
    subscription.standing = standing;
    const { view } = subscription;
    if (view === undefined) return;
    view.stand(standing);
    this.#user.notifier.add(view);
  }

  #readDirty(replica: Replica): void {
    if (!this.#mayBeDirty) return;
    this.#mayBeDirty = false;
    for (const name of replica.dirty()) {
      this.#dirty.add(name);
      this.#untold.add(name);
    }
  }
}

/** Whether UTF-8 can say it: on the way to the core another character would take the place of the half. */
const isWellFormed = (text: string): boolean => !/\p{Surrogate}/u.test(text);

/** Whether it can never be joined: the core has no such names. */
const isNameless = ({ standing }: Subscription): boolean => standing.error?.code === "invalid_name";
