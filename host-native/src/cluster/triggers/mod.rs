//! Triggers of the type `stream` where several instances share one truth: of the instances where an equal binding is bound one
//! leads, and calls the function once for each change.

mod course;
#[cfg(test)]
mod model_test;
mod pursuit;
mod tenure;
