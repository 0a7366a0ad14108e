//! Others ask this instance: their letters are read, what they ask for is executed by its own workers, and answered.

use std::sync::Arc;

use super::executing::Wanted;
use super::letter::{self, CallLetter, Letter, NOT_HERE, TOO_LATE, UNKNOWN};
use super::{Calls, HELD_CALLS, stopped};
use crate::cluster::roster::InstanceId;
use crate::engine::{Answer, CallResult, Failure, Output, ReplyTo};

impl Calls {
    /// Takes a message of another instance.
    pub(in crate::cluster) fn receive(&self, message: &[u8]) {
        let read = str::from_utf8(message).ok().and_then(letter::read_message);
        let Some((sender, letters)) = read else {
            tracing::warn!(
                bytes = message.len(),
                "a message of another instance cannot be read: does it run a version that this one does not know?"
            );
            return;
        };
        let sender = InstanceId::from(sender);
        for text in letters {
            match letter::read_letter(text) {
                Ok(letter) => self.take(&sender, letter),
                Err(error) => {
                    tracing::warn!(instance = %sender, %error, "a letter of another instance cannot be read");
                }
            }
        }
    }

    fn take(&self, sender: &InstanceId, letter: Letter<'_>) {
        match letter {
            Letter::Call(call) => self.execute(sender, &call),
            Letter::Answer { number, result } => self.answered(number, sender, result),
            Letter::NotHere(number) => self.not_here(number, sender),
            Letter::TooLate(number) => {
                let message = "the call reached the instance that has the function after its time, and was not begun";
                self.end(number, sender, &Failure::new("invocation_timeout", message));
            }
            Letter::Ask(numbers) => {
                let unknown = self.executing.lock().unknown(sender, numbers);
                if !unknown.is_empty() {
                    self.post_text(sender, letter::write_many(UNKNOWN, &unknown));
                }
            }
            Letter::Unknown(numbers) => {
                for number in numbers {
                    self.end(number, sender, &stopped());
                }
            }
            Letter::Forget(numbers) => {
                let mut executing = self.executing.lock();
                for number in numbers {
                    executing.end(sender, number);
                }
            }
            Letter::Other => {}
        }
    }

    fn execute(&self, sender: &InstanceId, letter: &CallLetter<'_>) {
        self.metrics.cluster_calls_received.inc();
        let number = letter.number;
        if letter.deadline_ms < self.wire.now_ms(&self.own) {
            return self.post_text(sender, letter::write_one(TOO_LATE, number));
        }
        let (Some(this), Some(registry)) = (self.this.upgrade(), self.registry.upgrade()) else {
            return;
        };
        let Some(wanted) = self.executing.lock().begin(sender, number) else {
            let message = format!(
                "the instance that has the function executes {} calls for others, which is the limit (forwarded_calls_max)",
                self.bounds.calls_max
            );
            let refused = Err(Failure::new("too_many_calls", &message));
            return self.post_text(sender, letter::write_answer(number, &refused));
        };
        let reply = || match letter.is_void {
            true => ReplyTo::nobody(),
            false => ReplyTo::new(InstanceAnswer {
                calls: this,
                caller: sender.clone(),
                number,
                wanted,
            }),
        };
        let is_here = registry.invoke_of_worker(&letter.call(), reply);
        if !is_here || letter.is_void {
            self.executing.lock().end(sender, number);
            let answer = match is_here {
                true => letter::write_answer(number, &Ok(Output::Nothing)),
                false => letter::write_one(NOT_HERE, number),
            };
            self.post_text(sender, answer);
        }
    }

    /// Writes an answer, or an error where there are bounds that it does not keep.
    fn write_answer(&self, number: u64, result: &CallResult) -> String {
        let bytes_max = self.bounds.bytes_max;
        let bytes = match result {
            Ok(Output::Json(json)) => json.len(),
            Ok(Output::Nothing) => 0,
            Err(failure) => failure.body().len(),
        };
        let failure = if bytes_max < bytes {
            let message = format!(
                "the answer of another instance has {bytes} bytes; the limit is {bytes_max} (forwarded_bytes_max)"
            );
            Failure::new("payload_too_large", &message)
        } else if HELD_CALLS * bytes_max < self.post.lock().held_bytes() + bytes {
            let message = format!(
                "answers of {} bytes wait to be sent to other instances, which is the limit ({HELD_CALLS} × forwarded_bytes_max)",
                HELD_CALLS * bytes_max
            );
            Failure::new("too_many_calls", &message)
        } else {
            return letter::write_answer(number, result);
        };
        letter::write_answer(number, &Err(failure))
    }
}

/// The way back to the instance that has asked.
struct InstanceAnswer {
    calls: Arc<Calls>,
    caller: InstanceId,
    number: u64,
    wanted: Wanted,
}

impl Answer for InstanceAnswer {
    fn answer(self: Box<Self>, result: CallResult) {
        if !self.wanted.is_wanted() {
            return;
        }
        self.calls.executing.lock().end(&self.caller, self.number);
        let text = self.calls.write_answer(self.number, &result);
        self.calls.post_text(&self.caller, text);
    }

    fn is_wanted(&self) -> bool {
        self.wanted.is_wanted()
    }
}
