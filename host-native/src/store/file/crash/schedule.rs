//! What happens in a schedule, made from a seed.

use iii_stream_core::command::{read_delete, read_send, read_set, read_update};
use iii_stream_core::{Draft, GroupKey, GroupLimits, Json, Kind, Ttl};

use super::super::disk::simulated::{Fate, Fault, Lasting, Moment, Operation};
use super::super::test_random::Random;
use super::super::{Durability, FileOptions};
use super::lives::End;
use super::world::World;
use crate::store::Condition;

/// How the store of a schedule is set up.
pub(super) fn options(random: &mut Random) -> FileOptions {
    FileOptions {
        durability: match random.below(5) {
            0 => Durability::Os,
            _ => Durability::Fsync,
        },
        limits: GroupLimits {
            items_max: 6,
            bytes_max: 12_000,
            client_records_max: 3,
            hot_items_max: 2,
            history_changes_max: 10 + random.below(40) as usize,
            history_bytes_max: 1 << 20,
        },
        history_bytes_max: 1 << 24,
        cache_bytes_max: 4 << 10,
        queue_bytes_max: match random.below(8) {
            0 => 1 << 10,
            _ => 1 << 20,
        },
        segment_bytes: 4_096 << random.below(3),
        fold_bytes: match random.below(3) {
            0 => 10_000,
            _ => 0,
        },
        log_bytes_max: u64::MAX,
    }
}

fn pick<'a>(random: &mut Random, of: &[&'a str]) -> &'a str {
    of[random.below(of.len() as u64) as usize]
}

impl World {
    pub(super) fn any_key(&mut self) -> GroupKey {
        let stream = pick(&mut self.random, &["a", "b/2"]);
        let group = pick(&mut self.random, &["g1", "g2", "g3"]);
        GroupKey {
            stream: stream.into(),
            group: group.into(),
        }
    }

    fn any_item(&mut self) -> &'static str {
        pick(
            &mut self.random,
            &["i1", "i2", "i3", "i4", "i5", "i6", "i7"],
        )
    }

    /// The fields that all commands may have.
    fn any_options(&mut self) -> String {
        let mut out = String::new();
        match self.random.below(12) {
            0 => out += r#","if":{"absent":true}"#,
            1 => out += r#","if":{"exists":true}"#,
            2 => {
                let seq = self.random.below(30);
                out += &format!(r#","if":{{"seq":{seq}}}"#);
            }
            _ => {}
        }
        match self.random.below(6) {
            0 => out += r#","returning":"none""#,
            1 => out += r#","returning":"both""#,
            2 => out += r#","returning":"new""#,
            _ => {}
        }
        out + &self.any_mutation()
    }

    fn any_mutation(&mut self) -> String {
        if self.random.below(3) != 0 {
            return String::new();
        }
        let client = self.random.below(5);
        let seq = 1 + self.random.below(12) + self.counts.commands / 10;
        format!(r#","mutation":{{"client":"client-{client}","seq":{seq}}}"#)
    }

    fn any_ttl(&mut self) -> String {
        if self.random.below(6) != 0 {
            return String::new();
        }
        let ttl_ms = 1 + self.random.below(300);
        format!(r#","ttl_ms":{ttl_ms}"#)
    }

    fn any_text(&mut self) -> String {
        let bytes = match self.random.below(40) {
            0 => 6_000,
            1..=3 => 1_500,
            4..=9 => 300,
            _ => self.random.below(30),
        };
        let letter = char::from(b'a' + self.random.below(26) as u8);
        letter.to_string().repeat(bytes as usize)
    }

    fn any_ops(&mut self) -> String {
        let n = self.random.below(100);
        let text = self.any_text();
        let one = |which: u64| match which {
            0 => format!(r#"{{"type":"increment","path":"n","by":{n}}}"#),
            1 => format!(r#"{{"type":"set","path":"deep.m{n}","value":"{text}"}}"#),
            2 => r#"{"type":"remove","path":"deep"}"#.to_owned(),
            // Fails where there is a text.
            3 => r#"{"type":"increment","path":"text","by":1}"#.to_owned(),
            _ => format!(r#"{{"type":"append","path":"text","value":"{text}"}}"#),
        };
        let count = 1 + self.random.below(3);
        let all: Vec<_> = (0..count).map(|_| one(self.random.below(6))).collect();
        all.join(",")
    }

    pub(super) fn any_command(&mut self) {
        let key = self.any_key();
        let item = self.any_item();
        let (stream, group) = (&key.stream, &key.group);
        let target = format!(r#""stream_name":"{stream}","group_id":"{group}""#);
        let written = match self.random.below(20) {
            0..=5 => {
                let (text, n) = (self.any_text(), self.random.below(100));
                let rest = self.any_ttl() + &self.any_options();
                let call = format!(
                    r#"{{{target},"item_id":"{item}","data":{{"n":{n},"text":"{text}"}}{rest}}}"#
                );
                return self.command(read_set(&call).expect("a command"));
            }
            6..=13 => {
                let ops = self.any_ops();
                let atomic = match self.random.below(3) {
                    0 => r#","atomic":true"#,
                    _ => "",
                };
                let rest = self.any_ttl() + &self.any_options();
                let call =
                    format!(r#"{{{target},"item_id":"{item}","ops":[{ops}]{atomic}{rest}}}"#);
                return self.command(read_update(&call).expect("a command"));
            }
            14..=17 => {
                let rest = self.any_options();
                format!(r#"{{{target},"item_id":"{item}"{rest}}}"#)
            }
            _ => {
                let id = match self.random.below(2) {
                    0 => format!(r#","id":"{item}""#),
                    _ => String::new(),
                };
                let (text, rest) = (self.any_text(), self.any_mutation());
                let call = format!(r#"{{{target},"type":"note"{id},"data":"{text}"{rest}}}"#);
                return self.command(read_send(&call).expect("a command"));
            }
        };
        self.command(read_delete(&written).expect("a command"));
    }

    fn any_announcement(&mut self) {
        let key = self.any_key();
        let value = Json::from_str_value("elsewhere");
        let kind = match self.random.below(3) {
            0 => Kind::Create,
            1 => Kind::Update,
            _ => Kind::Delete,
        };
        let draft = Draft {
            item: Some("far".into()),
            kind,
            value: Some(value),
            ops: None,
            base: None,
            ttl: Ttl::Keep,
            mutation: None,
        };
        self.announce(&key, draft);
    }

    fn any_read(&mut self) {
        let key = self.any_key();
        match self.random.below(4) {
            0 => self.list(&key),
            1 => {
                let item = self.any_item();
                self.get(&key, item);
            }
            2 => self.snapshot(&key),
            _ => self.page(&key),
        }
    }

    /// Lets go of a group that may be in memory.
    fn cool(&mut self) {
        let key = self.any_key();
        let inner = self.life().inner().clone();
        if let Some(entry) = inner.table.find(key.as_ref()) {
            inner.cool(&entry);
        }
    }

    fn forget(&mut self) {
        let inner = self.life().inner().clone();
        let watched = self.any_key();
        let groups = inner.table.len();
        inner.forget_idle(&|group| group == watched.as_ref());
        self.counts.forgotten += (groups - inner.table.len().min(groups)) as u64;
    }

    pub(super) fn any_action(&mut self) {
        // So that no two groups were used at the same time, and a seed tells which one goes.
        let inner = self.life().inner().clone();
        inner
            .turn
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        match self.random.below(100) {
            0..=49 => self.any_command(),
            50..=51 => self.any_announcement(),
            52..=59 => self.any_read(),
            60..=64 => {
                let item = match self.random.below(3) {
                    0 => Some(self.any_item()),
                    _ => None,
                };
                let needs_values = self.random.below(4) == 0;
                self.resume(item, needs_values);
            }
            65..=79 => self.settle(),
            80..=83 => {
                self.life().fold();
                self.counts.folds += 1;
            }
            84..=86 => self.cool(),
            87..=88 => inner.evict(),
            89..=90 => self.forget(),
            91..=93 => {
                self.now_ms += self.random.below(200);
                self.expire();
            }
            94 => {
                self.settle();
                // Nothing to do: the last batch is sealed.
                self.settle();
                if !self.disk.has_ended() {
                    self.check_listing();
                }
            }
            95 if self.trouble.full => self.make_room(),
            _ => self.now_ms += self.random.below(5),
        }
    }

    /// There is room again: changes are taken at the next quiet moment.
    fn make_room(&mut self) {
        self.settle();
        if let Condition::Full(_) = self.life().store.condition() {
            self.counts.full += 1;
        }
        self.disk.set_capacity(None);
        self.settle();
        let condition = self.life().store.condition();
        if !self.may_fail() {
            assert_eq!(condition, Condition::Works, "there is room");
            self.trouble.full = false;
        }
    }

    /// Plans what goes wrong in this life.
    pub(super) fn plan_trouble(&mut self) {
        self.disk.plan(Fault::ShortWrites { percent: 5 });
        self.disk.plan(Fault::ShortReads { percent: 5 });
        match self.random.below(10) {
            0..=3 => {
                let moments = [Moment::Before, Moment::Midway, Moment::After];
                let moment = moments[self.random.below(3) as usize];
                let at = 1 + self.random.below(120);
                self.disk.plan(Fault::PowerCut { at, moment });
            }
            4..=5 => {
                let operations = [
                    Operation::Read,
                    Operation::Write,
                    Operation::Rename,
                    Operation::Create,
                    Operation::SetLen,
                    Operation::SyncNames,
                    Operation::Sync,
                ];
                // Left to the system, a failed sync loses what was acknowledged.
                let count = match self.options.durability {
                    Durability::Os => 5,
                    Durability::Fsync => 7,
                };
                let lasting = match self.random.below(2) {
                    0 => Lasting::Once,
                    _ => Lasting::FromThenOn,
                };
                self.disk.plan(Fault::Error {
                    operation: operations[self.random.below(count) as usize],
                    name_prefix: "",
                    at: 1 + self.random.below(60),
                    lasting,
                });
                self.trouble.errors = true;
            }
            6..=7 => {
                let room = self.disk.used_bytes() + self.random.below(30_000);
                self.disk.set_capacity(Some(room));
                self.trouble.full = true;
            }
            _ => {}
        }
    }

    pub(super) fn any_end(&mut self) -> End {
        match self.random.below(4) {
            0 => End::Closed,
            1 => End::Killed,
            2 => End::PowerCut(Some(Fate::Nothing)),
            _ => End::PowerCut(None),
        }
    }

    /// Works until the power is cut, or so many things are done.
    pub(super) fn work(&mut self, actions: u64) {
        for _ in 0..actions {
            if self.disk.has_ended() {
                self.settle();
                break;
            }
            self.any_action();
        }
        if let Condition::ReadOnly(_) = self.life().store.condition() {
            self.counts.read_only += 1;
        }
    }
}
