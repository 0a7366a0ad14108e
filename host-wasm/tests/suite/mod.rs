//! The suite that runs in Node and in a browser alike: every vector through the exports.

mod face;
mod vectors;
