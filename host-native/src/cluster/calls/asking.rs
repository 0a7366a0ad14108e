//! This instance asks others: a call leaves here, is asked for elsewhere when that is of no use, and is answered.

use std::sync::Arc;
use std::time::Duration;

use super::open::Full;
use super::post::Outgoing;
use super::{Calls, HELD_CALLS, letter, stopped};
use crate::cluster::roster::InstanceId;
use crate::engine::{Call, CallResult, Elsewhere, Failure, Function, FunctionInfo, ReplyTo};

/// How long an instance may not listen before a call that only it could execute is given up.
const UNHEARD_TIME_MAX: Duration = Duration::from_secs(2);

/// How long after an instance no longer has a function others may tell that they have it now.
const DIRECTORY_LAG_MAX: Duration = Duration::from_millis(300);

impl Elsewhere for Calls {
    fn has(&self, id: &str) -> bool {
        self.places.has(id)
    }

    fn info(&self, id: &str) -> Option<FunctionInfo> {
        self.places.info(id)
    }

    fn list(&self) -> Vec<FunctionInfo> {
        self.places.functions()
    }

    fn has_custom_storage(&self) -> bool {
        self.places.has_custom_storage()
    }
}

impl Function for Calls {
    fn invoke(&self, call: &Call<'_>, reply: ReplyTo) {
        let is_void = !reply.is_wanted();
        let reply = reply.measured(self.measured.clone());
        let (bytes, bytes_max) = (letter::bytes_of(call), self.bounds.bytes_max);
        if bytes_max < bytes {
            let message = format!(
                "function '{}' is another instance's, and this call has {bytes} bytes; the limit is {bytes_max} (forwarded_bytes_max)",
                call.function_id
            );
            return reply.fail("payload_too_large", message);
        }
        let Some(at) = self.places.pick(call.function_id, &[]) else {
            let failure = Failure::function_not_found(call.function_id, "default");
            return reply.send(Err(failure));
        };
        let begun = {
            let mut open = self.open.lock();
            match open.check_room(bytes) {
                Ok(()) => {
                    let request = Arc::new(letter::Request::of(call, is_void));
                    Ok(open.begin(request, bytes, reply, at.clone()))
                }
                Err(full) => Err((full, reply)),
            }
        };
        match begun {
            Ok(number) => {
                self.note_in_flight();
                self.post_letter(&at, Outgoing::Call { number, bytes });
            }
            Err((full, reply)) => reply.fail("too_many_calls", self.describe(full)),
        }
    }
}

impl Calls {
    fn describe(&self, full: Full) -> String {
        match full {
            Full::Calls => format!(
                "this instance has {} calls of functions of other instances that are not answered, which is the limit (forwarded_calls_max)",
                self.bounds.calls_max
            ),
            Full::Bytes => format!(
                "the calls of functions of other instances that are not answered have {} bytes together, which is the limit ({HELD_CALLS} × forwarded_bytes_max)",
                HELD_CALLS * self.bounds.bytes_max
            ),
        }
    }

    /// Ends a call that an instance was asked for.
    pub(super) fn end(&self, number: u64, from: &str, failure: &Failure) {
        self.answered(number, from, Err(failure.clone()));
    }

    /// Takes an answer.
    pub(super) fn answered(&self, number: u64, from: &str, result: CallResult) {
        // An answer may come twice, or after the call was given up.
        let Some(call) = self.open.lock().finish(number, from) else {
            return;
        };
        self.note_in_flight();
        call.reply.send(result);
    }

    /// Sends a call that `from` surely has not begun to whom else has the function. Whether somebody has.
    pub(super) fn reroute(&self, number: u64, from: &str) -> bool {
        let Some(registry) = self.registry.upgrade() else {
            return false;
        };
        let mut open = self.open.lock();
        let Some(call) = open.get_mut(number).filter(|call| *call.at == *from) else {
            // It was answered, or is elsewhere already.
            return true;
        };
        call.not_sent();
        let request = call.request.clone();
        if registry.has_of_worker(&request.function_id) {
            let taken = open.take(number);
            drop(open);
            if let Some(call) = taken {
                registry.invoke(&request.call(), "default", call.reply);
            }
            return true;
        }
        let mut tried = call.tried.clone();
        tried.push(from.into());
        let Some(to) = self.places.pick(&request.function_id, &tried) else {
            return false;
        };
        let bytes = letter::bytes_of(&request.call());
        call.move_to(to.clone());
        drop(open);
        self.post_letter(&to, Outgoing::Call { number, bytes });
        true
    }

    /// Does what can be done about a call that an instance did not hear. Whether it is to be sent there again.
    pub(super) fn unheard(&self, number: u64, to: &str) -> bool {
        if self.reroute(number, to) {
            return false;
        }
        let is_given_up = match self.open.lock().get_mut(number) {
            Some(call) => UNHEARD_TIME_MAX <= call.unheard(),
            None => return false,
        };
        if is_given_up {
            self.end(number, to, &stopped());
        }
        !is_given_up
    }

    /// Does what can be done about a call of a function that an instance does not have.
    pub(super) fn not_here(&self, number: u64, from: &InstanceId) {
        if self.reroute(number, from) {
            return;
        }
        // The worker may have gone to an instance of which this one is about to learn that.
        if let Some(this) = self.this.upgrade() {
            self.runtime
                .spawn(this.wait_for_place(number, from.clone()));
        }
    }

    async fn wait_for_place(self: Arc<Self>, number: u64, from: InstanceId) {
        let mut changes = self.places.changes();
        let found = async {
            while !self.reroute(number, &from) {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(DIRECTORY_LAG_MAX, found)
            .await
            .is_err()
        {
            let request = {
                let mut open = self.open.lock();
                open.get_mut(number).map(|call| call.request.clone())
            };
            if let Some(request) = request {
                let failure = Failure::function_not_found(&request.function_id, "default");
                self.end(number, &from, &failure);
            }
        }
    }
}
