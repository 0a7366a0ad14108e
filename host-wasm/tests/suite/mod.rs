//! The suite that runs in Node and in a browser alike: every vector through the exports, the replica and grants.

mod face;
mod grants;
mod replica;
mod vectors;
