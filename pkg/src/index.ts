// The whole package by its bare name.

export * from "./core/index.js";
export * from "./client/index.js";
