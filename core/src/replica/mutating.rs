//! Shows mutations at once, and takes them away when their fate is known. Knows no frames.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::command::{Write, read_delete, read_send, read_set, read_update};
use crate::replica::overlay::{Pending, Prediction};
use crate::replica::pending::Maker;
use crate::replica::subscription::Subscription;
use crate::replica::{Entry, Replica, ReplicaError, shown_item};
use crate::text::push_string;

impl Replica {
    /// Shows a mutation at once. `data` is the input of the function without `mutation`. Gives what the server is expected to
    /// say, as JSON text.
    ///
    /// Shape: `{"opErrors":[{"op_index","code","message","doc_url"}],"refused":{"code","message"}|null}`. Errors: those of the
    /// call where it can never be accepted; `function_not_found`, `mutation_invalid`, `mutation_exists`, `too_many_pending`.
    pub fn mutate(
        &mut self,
        client: &str,
        seq: u64,
        function_id: &str,
        data: &str,
    ) -> Result<String, ReplicaError> {
        let read = match function_id {
            "stream::set" => read_set,
            "stream::update" => read_update,
            "stream::delete" => read_delete,
            "stream::send" => read_send,
            _ => {
                let function_id = function_id.into();
                return Err(ReplicaError::Function { function_id });
            }
        };
        let Write { target, command } = read(data)?;
        let group = target.as_ref();
        let Maker {
            client,
            tag,
            seq,
            number,
        } = self.pendings.admit(client, seq, group)?;
        let pending = Arc::new(Pending {
            client,
            tag,
            seq,
            number,
            item: command.item,
            action: command.action,
            condition: command.condition,
        });
        self.pendings.insert(pending.clone());
        let mut prediction = None;
        if let Some(id) = shown_item(&pending) {
            for name in self.groups.get(&group).map_or(&[][..], Vec::as_slice) {
                if let Some(Entry { subscription, .. }) = self.subscriptions.get_mut(name)
                    && subscription.follows(Some(id))
                {
                    let predicted = subscription.show(id, pending.clone());
                    prediction = prediction.or(predicted);
                }
            }
        }
        Ok(prediction_json(&prediction.unwrap_or_default()))
    }

    /// The server has taken a mutation; `change_seq` is the sequence of its change, `None` where nothing changed. It stays shown
    /// until what is confirmed has come to that.
    pub fn acknowledge(&mut self, client: &str, seq: u64, change_seq: Option<u64>) {
        self.settle(client, seq, |subscription, id, pending| match change_seq {
            Some(change_seq) => subscription.acknowledge(id, pending, change_seq),
            None => subscription.withdraw(id, pending),
        });
    }

    /// A mutation will never take effect, or nobody can know: it is not shown any more.
    pub fn withdraw(&mut self, client: &str, seq: u64) {
        self.settle(client, seq, Subscription::withdraw);
    }

    fn settle(
        &mut self,
        client: &str,
        seq: u64,
        settle: impl Fn(&mut Subscription, &Arc<str>, &Pending),
    ) {
        let Some((group, pending)) = self.pendings.take(client, seq) else {
            return;
        };
        let Some(id) = shown_item(&pending) else {
            return;
        };
        for name in self.groups.get(&group).map_or(&[][..], Vec::as_slice) {
            if let Some(Entry { subscription, .. }) = self.subscriptions.get_mut(name)
                && subscription.follows(Some(id))
            {
                settle(subscription, id, &pending);
            }
        }
    }
}

fn prediction_json(prediction: &Prediction) -> String {
    if prediction.errors.is_empty() && prediction.refused.is_none() {
        return r#"{"opErrors":[],"refused":null}"#.into();
    }
    let mut out = String::from(r#"{"opErrors":"#);
    if prediction.errors.is_empty() {
        out.push_str("[]");
    } else {
        // Numbers and strings in a list always have a JSON form.
        out.push_str(&serde_json::to_string(&prediction.errors).unwrap_or_default());
    }
    match &prediction.refused {
        Some((code, message)) => {
            out.push_str(r#","refused":{"code":"#);
            push_string(&mut out, code);
            out.push_str(r#","message":"#);
            push_string(&mut out, message);
            out.push_str("}}");
        }
        None => out.push_str(r#","refused":null}"#),
    }
    out
}
