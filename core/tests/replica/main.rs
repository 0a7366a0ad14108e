//! What a replica shows, whatever happens: what the server has confirmed, with the pending mutations carried out on top by a
//! real group; and in the end the group as it stands.

mod client;
mod server;
mod steps;

use iii_stream_core::{Json, Replica};
use proptest::prelude::*;

use client::Client;
use server::Server;
use steps::{CLIENTS, finish, run, steps};

/// How many histories are tried; more by the environment.
fn cases() -> u32 {
    let cases = std::env::var("PROPTEST_CASES").ok();
    cases.and_then(|cases| cases.parse().ok()).unwrap_or(96)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn what_is_shown_is_what_is_confirmed_and_what_is_pending(steps in steps(), lags in prop::bool::weighted(0.3)) {
        let mut server = Server::new();
        let mut clients: Vec<_> = CLIENTS.iter().enumerate().map(|(index, follows)| Client::new(index, follows, lags)).collect();
        for step in steps {
            run(step, &mut server, &mut clients, lags);
            for client in &mut clients {
                if !lags {
                    client.look();
                    client.check(&server);
                }
            }
        }
        finish(&mut server, &mut clients, lags);
    }

    #[test]
    fn no_text_makes_it_stumble(text in "[\\PC\\x00]{0,60}", cut: prop::sample::Index, put in "[\\[\\]{}\",:0-9a-z]{0,3}") {
        let mut replica = Replica::new();
        replica.open("s1", "s", "g", None).expect("a new subscription");
        replica.join("s1", true).expect("a subscription");
        let frames = [
            r#"{"type":"stream","timestamp":1,"streamName":"s","groupId":"g","id":null,"subscriptionId":"s1","epoch":"e","seq":1,"mutations":[{"tag":"t","seq":1}],"event":{"type":"sync","mode":"snapshot","items":[{"id":"a","seq":1,"data":{"n":[1]}}],"more":false}}"#,
            r#"{"type":"stream","timestamp":1,"streamName":"s","groupId":"g","id":"a","seq":2,"mutation":{"tag":"t","seq":1},"event":{"type":"update","base":1,"ops":[{"type":"increment","path":"n","by":1}]}}"#,
            r#"{"type":"error","subscriptionId":"s1","code":"c","message":"m"}"#,
        ];
        replica.receive(&text).ok();
        for frame in frames {
            let at = frame.floor_char_boundary(cut.index(frame.len()));
            let hostile = format!("{}{put}{}", &frame[..at], &frame[at..]);
            let before = format!("{replica:?}");
            if replica.receive(&hostile).is_err() {
                prop_assert_eq!(&before, &format!("{replica:?}"), "nothing changed");
            }
            prop_assert!(replica.receive(&frame[..at]).is_err());
            replica.receive(frame).ok();
        }
        Json::from_text(&replica.changes("s1").expect("a subscription")).expect("JSON text");
    }
}
