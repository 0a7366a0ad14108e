//! The suite that runs in Node and in a browser alike: every vector through the exports, and the replica.

mod face;
mod replica;
mod vectors;
