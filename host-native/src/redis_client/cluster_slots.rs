//! What a server of a cluster says about the slots.

use redis::Value;

use super::address::Address;
use super::dial::Dialed;
use super::options::TOPOLOGY_TIME_MAX;

/// The first and the last slot of a range, and the address of their master.
pub(super) type Range = (usize, usize, Address);

/// The question for the slots.
pub(super) fn slots_question() -> redis::Cmd {
    let mut question = redis::cmd("CLUSTER");
    question.arg("SLOTS");
    question
}

/// Asks one server for the slots.
pub(super) async fn ask_slots(dialed: &mut Dialed, address: &Address) -> Option<Vec<Range>> {
    let question = slots_question();
    let asked = tokio::time::timeout(TOPOLOGY_TIME_MAX, dialed.ask(&question)).await;
    read_slots(asked.ok()?.ok()?, address)
}

/// Reads `CLUSTER SLOTS`: lists of first slot, last slot, master, replicas. None where there is no slot at all.
pub(super) fn read_slots(answer: Value, from: &Address) -> Option<Vec<Range>> {
    let Value::Array(ranges) = answer else {
        return None;
    };
    let mut read = Vec::with_capacity(ranges.len());
    for range in ranges {
        let Value::Array(parts) = range else {
            return None;
        };
        let [
            Value::Int(first),
            Value::Int(last),
            Value::Array(master),
            ..,
        ] = &parts[..]
        else {
            return None;
        };
        let [host, Value::Int(port), ..] = &master[..] else {
            return None;
        };
        // A server that does not know its own address means the one that it was reached by.
        let host = match host {
            Value::BulkString(host) if !host.is_empty() && host != b"?" => {
                String::from_utf8_lossy(host).into_owned()
            }
            _ => from.host.to_string(),
        };
        let address = Address::new(&host, u16::try_from(*port).ok()?);
        read.push((
            usize::try_from(*first).ok()?,
            usize::try_from(*last).ok()?,
            address,
        ));
    }
    (!read.is_empty()).then_some(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_read_and_a_server_without_address_is_the_asked_one() {
        let answer = b"*2\r\n*4\r\n:0\r\n:99\r\n*3\r\n$8\r\n10.0.0.1\r\n:7000\r\n$1\r\na\r\n*3\r\n$8\r\n10.0.0.2\r\n:7000\r\n$1\r\nb\r\n*3\r\n:100\r\n:16383\r\n*3\r\n$0\r\n\r\n:7001\r\n$1\r\nc\r\n";
        let answer = redis::parse_redis_value(answer).expect("RESP");
        let ranges = read_slots(answer, &Address::new("asked", 7001));
        let expected = vec![
            (0, 99, Address::new("10.0.0.1", 7000)),
            (100, 16_383, Address::new("asked", 7001)),
        ];
        assert_eq!(ranges, Some(expected));
        assert_eq!(
            read_slots(Value::Array(Vec::new()), &Address::new("asked", 1)),
            None
        );
    }
}
