// Hands a client down to the hooks below.

import { type FunctionComponentElement, type ProviderProps, type ReactNode, createContext, createElement, useContext } from "react";
import type { StreamClient } from "../client/stream_client.js";

const ClientContext = createContext<StreamClient | null>(null);

/** Props of {@link StreamProvider}. */
export interface StreamProviderProps {
  /** Made once, outside of rendering. */
  readonly client: StreamClient;
  readonly children?: ReactNode;
}

/** Gives the hooks below it their client. It neither opens nor closes it. */
export function StreamProvider({ client, children }: StreamProviderProps): FunctionComponentElement<ProviderProps<StreamClient | null>> {
  return createElement(ClientContext.Provider, { value: client }, children);
}

/** The client of the nearest {@link StreamProvider}. */
export function useStreamClient(): StreamClient {
  const client = useContext(ClientContext);
  if (client === null) throw new Error("there is no <StreamProvider> around this component");
  return client;
}
