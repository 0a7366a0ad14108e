//! From what a store says to the answer of a call.

use iii_stream_core::{CallError, Refusal};

use crate::engine::{CallResult, Failure, ReplyTo};
use crate::store::{Done, StoreError};

/// Turns what a store says into the answer of a call; `code` is that of the store's own errors.
pub fn answer<T: 'static>(
    code: &'static str,
    reply: ReplyTo,
    to_result: impl FnOnce(T) -> CallResult + Send + 'static,
) -> Done<T> {
    Box::new(move |outcome| {
        reply.send(
            outcome
                .map_err(|error| failed(code, &error))
                .and_then(to_result),
        );
    })
}

/// An error of a store as the error of a call.
fn failed(code: &str, error: &StoreError) -> Failure {
    let failure = Failure::new(code, &error.message);
    match error.cause.name() {
        Some(cause) => failure.with_field("storage", &format!("\"{cause}\"")),
        None => failure,
    }
}

/// Answers a call that cannot be read; gives back what is needed to go on with one that can.
pub fn unless_refused<T>(input: Result<T, CallError>, reply: ReplyTo) -> Option<(T, ReplyTo)> {
    match input {
        Ok(input) => Some((input, reply)),
        Err(error) => {
            reply.fail(error.code(), error.to_string());
            None
        }
    }
}

/// A refusal as the error of a call, with what its caller needs to go on as fields of their own.
pub fn refused(refusal: Refusal) -> Failure {
    let failure = Failure::new(refusal.code(), &refusal.to_string());
    match refusal {
        Refusal::PreconditionFailed { seq } => failure.with_field(
            "seq",
            &seq.map_or_else(|| "null".to_owned(), |seq| seq.to_string()),
        ),
        Refusal::MutationGap { expected, .. } => {
            failure.with_field("expected", &expected.to_string())
        }
        _ => failure,
    }
}
