//! Hands what a frame tells to the subscriptions that it is for, and to the pending mutations. Knows no items.

use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

use crate::name::GroupRef;
use crate::replica::frame::{ErrorFrame, Event, Frame, StreamFrame};
use crate::replica::received::{ConfirmedMutation, Received, ReceivedError};
use crate::replica::subscription::Promise;
use crate::replica::{Entry, Replica, ReplicaError, shown_item};

impl Replica {
    /// Takes a frame of the connection. Gives what must be heard of it beside what changed in items, as JSON text; `None` is
    /// nothing. Frames of other types than `stream` and `error`, and of what is not followed, are ignored.
    ///
    /// Shape: `{"rejoin":["s1"]?,"synced":["s1"]?,"denied":["s1"]?,"errors":[{"subscription"?,"code","message"}]?,
    /// "events":[{"subscription","id","seq","type","data"}]?,"confirmed":[{"client","seq","changeSeq"}]?,"version1":true?}`.
    /// Errors: `frame_invalid`.
    pub fn receive(&mut self, text: &str) -> Result<Option<String>, ReplicaError> {
        let frame = Frame::read(text).map_err(|reason| ReplicaError::Frame { reason })?;
        let mut received = Received::default();
        match frame {
            Frame::Stream(frame) => self.receive_stream(frame, &mut received),
            Frame::Error(error) => self.receive_error(&error, &mut received),
            Frame::Other => {}
        }
        Ok(received.into_json())
    }

    fn receive_error(&mut self, error: &ErrorFrame<'_>, received: &mut Received) {
        let subscription = error.subscription.as_deref();
        if let Some(entry) = subscription.and_then(|name| self.subscriptions.get_mut(name)) {
            entry.subscription.fail();
        }
        received.errors.push(ReceivedError {
            subscription: subscription.map(Into::into),
            code: error.code.as_ref().into(),
            message: error.message.as_ref().into(),
        });
    }

    fn receive_stream(&mut self, mut frame: StreamFrame<'_>, received: &mut Received) {
        let group = GroupRef {
            stream: &frame.stream,
            group: &frame.group,
        };
        let mut event = mem::replace(&mut frame.event, Event::Other);
        let echo = frame
            .mutation
            .as_ref()
            .and_then(|taken| self.pendings.take_echoed(group, &taken.tag, taken.seq));
        let of_group = self.groups.get(&group).map_or(&[][..], Vec::as_slice);
        let mut promises = Vec::new();
        for (index, name) in of_group.iter().enumerate() {
            let Some(Entry { subscription, .. }) = self.subscriptions.get_mut(name) else {
                continue;
            };
            let is_named = frame
                .subscription
                .as_ref()
                .is_none_or(|own| **own == **name);
            let is_sync = matches!(event, Event::Value(_) | Event::Values(_));
            let is_meant = if is_sync {
                subscription.item() == frame.item.as_deref()
            } else {
                subscription.follows(frame.item.as_deref())
            };
            if is_named && is_meant {
                let event = if index + 1 == of_group.len() {
                    mem::replace(&mut event, Event::Other)
                } else {
                    event.clone()
                };
                subscription.receive(&frame, event, received);
                if let Some(promise) = subscription.kept_promise() {
                    promises.push((name.clone(), promise));
                }
            }
            // Also where the frame was for others, or too early.
            if let (Some(pending), Some(seq)) = (&echo, frame.seq)
                && let Some(id) = shown_item(pending)
                && subscription.follows(Some(id))
            {
                subscription.acknowledge(id, pending, seq);
            }
        }
        if let Some(pending) = echo {
            received.confirmed.push(ConfirmedMutation {
                client: pending.client.clone(),
                seq: pending.seq,
                change_seq: frame.seq,
            });
        }
        for (name, promise) in promises {
            self.keep_promise(group, &name, &promise, received);
        }
    }

    /// A subscription is where a `sync` has said that mutations were taken.
    fn keep_promise(
        &mut self,
        group: GroupRef<'_>,
        teller: &str,
        promise: &Promise,
        received: &mut Received,
    ) {
        for (tag, seq) in &promise.taken {
            for pending in self.pendings.take_up_to(group, tag, *seq) {
                let of_group = self.groups.get(&group).map_or(&[][..], Vec::as_slice);
                for name in of_group {
                    if let Some(Entry { subscription, .. }) = self.subscriptions.get_mut(name)
                        && let Some(id) = shown_item(&pending)
                        && subscription.follows(Some(id))
                    {
                        if **name == *teller {
                            subscription.settle_told(id, &pending, promise.until);
                        } else if subscription.item().is_some() {
                            subscription.acknowledge_by_sync(id, &pending);
                        } else {
                            subscription.acknowledge(id, &pending, promise.until);
                        }
                    }
                }
                received.confirmed.push(ConfirmedMutation {
                    client: pending.client.clone(),
                    seq: pending.seq,
                    change_seq: None,
                });
            }
        }
    }
}
