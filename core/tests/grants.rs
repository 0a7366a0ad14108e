//! What holds for every pattern, and for every list of grants.

use iii_stream_core::{Ability, Grants, GroupRef, View};
use proptest::prelude::*;
use serde_json::json;

/// Matches by trying everything: easy to believe, and slow.
fn naive(pattern: &[char], name: &[char]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some(('*', rest)) => (0..=name.len()).any(|from| naive(rest, &name[from..])),
        Some((first, rest)) => name.first() == Some(first) && naive(rest, &name[1..]),
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    let chars = |text: &str| text.chars().collect::<Vec<_>>();
    naive(&chars(pattern), &chars(name))
}

fn grant() -> impl Strategy<Value = ([String; 3], bool, bool)> {
    (
        [pattern(), pattern(), pattern()],
        any::<bool>(),
        any::<bool>(),
    )
}

fn pattern() -> impl Strategy<Value = String> {
    prop_oneof![Just("*".to_owned()), "[ab*]{1,6}", "[aé*]{1,4}"]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[ab]{1,8}", "[aé*]{1,5}"]
}

proptest! {
    #[test]
    fn grants_mean_what_trying_everything_says(
        written in prop::collection::vec(grant(), 0..4),
        (stream, group) in (name(), name()),
        items in prop::collection::vec(name(), 1..6),
    ) {
        let text = written.iter().map(|([stream, group, item], reads, sends)| {
            let can: Vec<_> = [(*reads, "read"), (*sends, "send")]
                .into_iter()
                .filter_map(|(is_granted, ability)| is_granted.then_some(ability))
                .collect();
            let mut grant = json!({"stream": stream, "group": group, "item": item, "can": can});
            if item == "*" && *sends {
                grant.as_object_mut().expect("an object").remove("item");
            }
            grant
        });
        let text = serde_json::Value::from_iter(text).to_string();
        let grants = Grants::from_text(&text).expect("grants");
        let of_group = || written.iter().filter(|([of_stream, of_group, _], ..)| {
            matches(of_stream, &stream) && matches(of_group, &group)
        });
        let key = GroupRef { stream: &stream, group: &group };
        let view = grants.view(key);
        let reads_any = of_group().any(|(_, reads, _)| *reads);
        prop_assert_eq!(view != View::Nothing, reads_any);
        prop_assert_eq!(view.shows(None), reads_any);
        for item in &items {
            let may = |of: fn(&(bool, bool)) -> bool| {
                of_group().any(|([_, _, of_item], reads, sends)| {
                    of(&(*reads, *sends)) && matches(of_item, item)
                })
            };
            prop_assert_eq!(view.shows(Some(item)), may(|can| can.0));
            prop_assert_eq!(grants.may(Ability::Read, key, Some(item)), may(|can| can.0));
            prop_assert_eq!(grants.may(Ability::Send, key, Some(item)), may(|can| can.1));
            prop_assert!(!grants.may(Ability::Set, key, Some(item)));
            // Whoever may do it to all items may do it to each.
            prop_assert!(!grants.may(Ability::Send, key, None) || may(|can| can.1));
        }
    }
}
