//! The calls that this instance has asked others for and that are not answered yet. Knows no Redis and sends nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::letter::Request;
use crate::cluster::roster::InstanceId;
use crate::engine::ReplyTo;

/// A call of a function of another instance.
pub(super) struct OpenCall {
    pub(super) request: Arc<Request>,
    pub(super) reply: ReplyTo,
    /// Who is asked.
    pub(super) at: InstanceId,
    /// Who was asked before and has not begun it.
    pub(super) tried: Vec<InstanceId>,
    since: Instant,
    /// Since when `at` may have it. `None`: surely not.
    sent_at: Option<Instant>,
    /// Since when `at` was found not to listen.
    unheard_since: Option<Instant>,
    bytes: usize,
}

/// Why there is no room for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    Calls,
    Bytes,
}

/// Open calls by number.
pub(super) struct OpenCalls {
    calls_max: usize,
    bytes_max: usize,
    calls: HashMap<u64, OpenCall>,
    bytes: usize,
    next: u64,
}

impl OpenCalls {
    pub(super) fn new(calls_max: usize, bytes_max: usize) -> Self {
        Self {
            calls_max,
            bytes_max,
            calls: HashMap::new(),
            bytes: 0,
            next: 1,
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether a call of so many bytes may begin. A single one always may, however large.
    pub(super) fn check_room(&self, bytes: usize) -> Result<(), Full> {
        if self.calls_max <= self.calls.len() {
            return Err(Full::Calls);
        }
        if 0 < self.bytes && self.bytes_max < self.bytes + bytes {
            return Err(Full::Bytes);
        }
        Ok(())
    }

    /// Notes a call and gives its number.
    pub(super) fn begin(
        &mut self,
        request: Arc<Request>,
        bytes: usize,
        reply: ReplyTo,
        at: InstanceId,
    ) -> u64 {
        let number = self.next;
        self.next += 1;
        self.bytes += bytes;
        let call = OpenCall {
            request,
            reply,
            at,
            tried: Vec::new(),
            since: Instant::now(),
            sent_at: None,
            unheard_since: None,
            bytes,
        };
        self.calls.insert(number, call);
        number
    }

    /// Takes a call that an instance has answered. `None`: it was not asked, or the call has ended already.
    pub(super) fn finish(&mut self, number: u64, from: &str) -> Option<OpenCall> {
        self.calls.get(&number).filter(|call| *call.at == *from)?;
        self.take(number)
    }

    /// Takes a call, whoever was asked.
    pub(super) fn take(&mut self, number: u64) -> Option<OpenCall> {
        let call = self.calls.remove(&number)?;
        self.bytes -= call.bytes;
        Some(call)
    }

    /// A call that has not ended.
    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut OpenCall> {
        self.calls.get_mut(&number)
    }

    /// Notes that a call is on its way to whom it is for. Gives what to send; `None` when it is no longer for `to`.
    pub(super) fn send(&mut self, number: u64, to: &str) -> Option<Arc<Request>> {
        let call = self.calls.get_mut(&number).filter(|it| *it.at == *to)?;
        call.sent_at = Some(Instant::now());
        Some(call.request.clone())
    }

    /// All calls for an instance: those that it surely does not have, and those that it may have, in order.
    pub(super) fn of_instance(&self, id: &str) -> (Vec<u64>, Vec<u64>) {
        let mut unsent = Vec::new();
        let mut sent = Vec::new();
        for (number, call) in self.calls.iter().filter(|(_, call)| *call.at == *id) {
            let list = if call.sent_at.is_some() {
                &mut sent
            } else {
                &mut unsent
            };
            list.push(*number);
        }
        unsent.sort_unstable();
        sent.sort_unstable();
        (unsent, sent)
    }

    /// Calls that were sent so long ago, by whom they are for.
    pub(super) fn sent_before(&self, age: Duration) -> HashMap<InstanceId, Vec<u64>> {
        let mut by_instance = HashMap::<_, Vec<_>>::new();
        for (number, call) in &self.calls {
            if call.sent_at.is_some_and(|at| age <= at.elapsed()) {
                by_instance
                    .entry(call.at.clone())
                    .or_default()
                    .push(*number);
            }
        }
        by_instance
    }

    /// Takes calls that nobody waits for any more, and those that are too old.
    pub(super) fn sweep(&mut self, age_max: Duration) -> (Vec<(u64, OpenCall)>, Vec<OpenCall>) {
        let is_unwanted = |call: &OpenCall| !call.request.is_void && !call.reply.is_wanted();
        let unwanted: Vec<_> = self.calls.extract_if(|_, call| is_unwanted(call)).collect();
        let overdue: Vec<_> = self
            .calls
            .extract_if(|_, call| age_max <= call.since.elapsed())
            .map(|(_, call)| call)
            .collect();
        let ended = unwanted.iter().map(|(_, call)| call).chain(&overdue);
        self.bytes -= ended.map(|call| call.bytes).sum::<usize>();
        (unwanted, overdue)
    }
}

impl OpenCall {
    /// Notes that whom it is for does not listen. For how long that has been so.
    pub(super) fn unheard(&mut self) -> Duration {
        self.unheard_since
            .get_or_insert_with(Instant::now)
            .elapsed()
    }

    /// Notes that whom it is for surely does not have it.
    pub(super) fn not_sent(&mut self) {
        self.sent_at = None;
    }

    /// Asks another instance instead.
    pub(super) fn move_to(&mut self, to: InstanceId) {
        let before = std::mem::replace(&mut self.at, to);
        self.tried.push(before);
        self.sent_at = None;
        self.unheard_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Call, Output};

    fn begin(calls: &mut OpenCalls, bytes: usize, at: &str) -> (u64, crate::engine::Waiter) {
        let (reply, waiter) = ReplyTo::waiter();
        let request = Arc::new(Request::of(&Call::from_server("f", "null"), false));
        (calls.begin(request, bytes, reply, at.into()), waiter)
    }

    #[test]
    fn only_who_was_asked_can_answer_and_only_once() {
        let mut calls = OpenCalls::new(10, 100);
        let (number, waiter) = begin(&mut calls, 1, "a");
        assert!(calls.finish(number, "b").is_none());
        let call = calls.get_mut(number).expect("an open call");
        call.move_to("b".into());
        assert_eq!(call.tried, [InstanceId::from("a")]);
        assert!(calls.finish(number, "a").is_none(), "b is asked now");
        let call = calls.finish(number, "b").expect("the call");
        call.reply.send(Ok(Output::Nothing));
        drop(waiter);
        assert!(calls.finish(number, "b").is_none());
        assert_eq!(calls.bytes, 0);
    }

    #[test]
    fn there_are_bounds() {
        let mut calls = OpenCalls::new(2, 100);
        assert_eq!(calls.check_room(1_000), Ok(()), "one alone");
        let _first = begin(&mut calls, 60, "a");
        assert_eq!(calls.check_room(40), Ok(()));
        assert_eq!(calls.check_room(41), Err(Full::Bytes));
        let _second = begin(&mut calls, 40, "a");
        assert_eq!(calls.check_room(0), Err(Full::Calls));
    }

    #[test]
    fn what_was_sent_is_known_to_have_been_sent() {
        let mut calls = OpenCalls::new(10, 100);
        let (sent, _a) = begin(&mut calls, 1, "a");
        let (unsent, _b) = begin(&mut calls, 1, "a");
        assert!(calls.send(sent, "b").is_none() && calls.send(sent, "a").is_some());
        assert_eq!(calls.of_instance("a"), (vec![unsent], vec![sent]));
        assert_eq!(calls.sent_before(Duration::ZERO).len(), 1);
        assert!(calls.sent_before(Duration::from_secs(60)).is_empty());
        calls.get_mut(sent).expect("the call").not_sent();
        assert!(calls.sent_before(Duration::ZERO).is_empty());
    }

    #[test]
    fn abandoned_and_old_calls_end() {
        let mut calls = OpenCalls::new(10, 100);
        let (abandoned, waiter) = begin(&mut calls, 1, "a");
        let (_, _kept) = begin(&mut calls, 1, "a");
        drop(waiter);
        let (unwanted, overdue) = calls.sweep(Duration::from_secs(60));
        assert_eq!(unwanted.len(), 1);
        assert_eq!((unwanted[0].0, overdue.len()), (abandoned, 0));
        let (unwanted, overdue) = calls.sweep(Duration::ZERO);
        assert_eq!((unwanted.len(), overdue.len(), calls.bytes), (0, 1, 0));
    }
}
