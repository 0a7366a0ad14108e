//! Reading a Redis as an engine leaves it, and as others do.

use redis::{Commands, Connection};

use super::*;
use crate::redis_client::test_server::{TestServer, free_port, is_installed};

/// A server with a plain connection, as another program has one.
fn server() -> Option<(TestServer, Connection)> {
    let server = is_installed().then(|| TestServer::start_with(&[]))?;
    let client = Client::open(server.url()).expect("an address");
    let redis = client.get_connection().expect("a connection");
    Some((server, redis))
}

fn naming(streams: &[&str]) -> Naming {
    Naming {
        is_state: false,
        streams: streams.iter().map(|stream| (*stream).to_owned()).collect(),
    }
}

/// All items as text, sorted, and all errors.
fn read(engine: &RedisEngine) -> (Vec<String>, Vec<String>) {
    let (mut items, mut errors) = (Vec::new(), Vec::new());
    let mut source = engine.items();
    loop {
        match source.next_item() {
            Ok(None) => break,
            Ok(Some((entry, _))) => {
                items.push(format!("{} = {}", entry.place, entry.value.as_str()));
            }
            Err(error @ SourceError::Damaged { .. }) => errors.push(error.to_string()),
            Err(error) => panic!("{error}"),
        }
    }
    items.sort();
    errors.sort();
    (items, errors)
}

#[test]
fn reads_groups_and_scopes_and_leaves_the_rest() {
    let Some((server, mut redis)) = server() else {
        return;
    };
    let hashes = [
        ("stream:chat:r[1]*?", "m1", r#"{"text":"hi"}"#),
        ("stream:chat:r[1]*?", "null", "null"),
        ("stream:c\\h*at:🦀", "a/b c", "1.2345678901235e+18"),
        ("state:users", "u1", r#"{ "n" : [ ] }"#),
        ("state:a:b", "k", "true"),
        ("other:stream:chat:r", "x", "1"),
        ("streams:chat:r", "x", "1"),
    ];
    for (key, field, text) in hashes {
        let () = redis.hset(key, field, text).expect("a hash");
    }
    let () = redis
        .hset("stream:without-group", "x", "1")
        .expect("a hash");
    let () = redis.set("stream:a:text", "no hash").expect("a text");
    let () = redis.rpush("state:list", 1).expect("a list");
    let engine = RedisEngine::open(&server.url(), &naming(&[])).expect("an engine's");
    let (items, errors) = read(&engine);
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(
        items,
        [
            "item `a/b c` of `c\\h*at`, group `🦀` = 1.2345678901235e+18",
            "item `m1` of `chat`, group `r[1]*?` = {\"text\":\"hi\"}",
            "item `null` of `chat`, group `r[1]*?` = null",
            "state `k` of scope `a:b` = true",
            "state `u1` of scope `users` = {\"n\":[]}",
        ]
    );
    assert_eq!(engine.ambiguous, Vec::<String>::new());
    assert!(
        engine.notes[0].starts_with("3 of the keys"),
        "{:?}",
        engine.notes
    );
}

#[test]
fn names_with_colons_are_told_and_can_be_settled() {
    let Some((server, mut redis)) = server() else {
        return;
    };
    for key in ["stream:a:b:c", "stream:a:b", "stream:x:y:z:1"] {
        let () = redis.hset(key, "i", "1").expect("a hash");
    }
    let engine = RedisEngine::open(&server.url(), &naming(&[])).expect("an engine's");
    assert_eq!(
        engine.ambiguous,
        [
            "stream:a:b:c: taken as stream `a`, group `b:c`",
            "stream:x:y:z:1: taken as stream `x`, group `y:z:1`",
        ]
    );
    assert!(
        engine.notes[0].contains("2 of its keys"),
        "{:?}",
        engine.notes
    );
    let engine = RedisEngine::open(&server.url(), &naming(&["a:b", "x:y", "x:y:z"]));
    let engine = engine.expect("an engine's");
    assert_eq!(engine.ambiguous, Vec::<String>::new());
    assert_eq!(
        read(&engine).0,
        [
            "item `i` of `a:b`, group `c` = 1",
            "item `i` of `a`, group `b` = 1",
            "item `i` of `x:y:z`, group `1` = 1",
        ]
    );
}

#[test]
fn what_is_no_json_is_told_with_key_and_field() {
    let Some((server, mut redis)) = server() else {
        return;
    };
    let deep = "[".repeat(200) + &"]".repeat(200);
    for (field, text) in [
        ("a", b"{oops".as_slice()),
        ("b", b"\xff"),
        ("c", deep.as_bytes()),
        ("d", b"1"),
        ("", b"1"),
    ] {
        let () = redis.hset("stream:s:g", field, text).expect("a hash");
    }
    let () = redis.hset("stream:s:g", b"\xfe", "1").expect("a hash");
    let () = redis.hset(b"stream:s:\xfe", "x", "1").expect("a hash");
    let () = redis.hset("stream::g", "x", "1").expect("a hash");
    let () = redis.hset("state:", "x", "1").expect("a hash");
    let engine = RedisEngine::open(&server.url(), &naming(&[])).expect("an engine's");
    let (items, errors) = read(&engine);
    assert_eq!(items, ["item `d` of `s`, group `g` = 1"]);
    let told = |start: &str| {
        let is_there = errors.iter().any(|error| error.starts_with(start));
        assert!(is_there, "{start} in {errors:#?}");
    };
    told("stream:s:g: field `a`: its value cannot be read: not JSON");
    told("stream:s:g: field `b`: its value is not UTF-8");
    told("stream:s:g: field `c`: its value cannot be read: nests more than 125 levels");
    told("stream:s:g: field ``: an item's id has 0 bytes");
    told("stream:s:g: field `\u{fffd}`: its name is not UTF-8");
    told("stream:s:\u{fffd}: the key is not UTF-8");
    told("stream::g: the stream's name has 0 bytes");
    told("state:: the scope has 0 bytes");
    assert_eq!(errors.len(), 8);
}

#[test]
fn a_large_hash_is_read_in_pieces_that_fit_its_items() {
    let Some((server, mut redis)) = server() else {
        return;
    };
    const ITEMS: usize = 100_000;
    let text = format!("\"{}\"", "x".repeat(10_000));
    for chunk in 0..ITEMS / 1_000 {
        let fields: Vec<(String, usize)> = (chunk * 1_000..(chunk + 1) * 1_000)
            .map(|index| (format!("i{index}"), index))
            .collect();
        let () = redis
            .hset_multiple("stream:s:many", &fields)
            .expect("a hash");
    }
    let large: Vec<(String, &str)> = (0..2_000)
        .map(|index| (format!("l{index}"), &*text))
        .collect();
    let () = redis
        .hset_multiple("stream:s:large", &large)
        .expect("a hash");
    let engine = RedisEngine::open(&server.url(), &naming(&[])).expect("an engine's");
    let mut source = engine.items();
    let (mut ids, mut piece_bytes_max) = (std::collections::HashSet::new(), 0);
    while let Some((entry, _)) = source.next_item().expect("an item") {
        ids.insert(entry.place);
        let waits = source.open.iter().flat_map(|open| &open.piece);
        let bytes = waits
            .map(|(field, text)| field.len() + text.len())
            .sum::<usize>();
        piece_bytes_max = piece_bytes_max.max(bytes);
    }
    assert_eq!(ids.len(), ITEMS + 2_000);
    assert!(piece_bytes_max < 2 * PIECE_BYTES, "{piece_bytes_max}");
    assert!(20_000_000 < source.bytes_read());
}

#[test]
fn says_what_is_wrong_with_an_address_and_hides_passwords() {
    let refused = |address: &str| {
        let error = RedisEngine::open(address, &naming(&[])).expect_err("an error");
        error.to_string()
    };
    let error = refused("redis://user:secret@host:port/0");
    assert!(error.contains("redis://…@host:port/0"), "{error}");
    assert!(!error.contains("secret"), "{error}");
    let port = free_port();
    let error = refused(&format!("redis://:secret@127.0.0.1:{port}/3"));
    assert!(
        error.starts_with(&format!(
            "cannot read the Redis at redis://127.0.0.1:{port}/3: "
        )),
        "{error}"
    );
    let Some((server, _)) = server() else {
        return;
    };
    let error = refused(&server.url());
    assert!(error.contains("holds nothing of an iii engine"), "{error}");
}
