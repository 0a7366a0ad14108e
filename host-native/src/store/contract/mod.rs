//! What every store promises, as tests: the same behaviours run on memory, on files and on Redis. A store that keeps them
//! can be taken for another without a client noticing.

mod changes;
mod file;
mod memory;
mod mutations;
mod pages;
mod reading;
mod redis;
mod redis_cluster;
mod replies;
mod resuming;
mod subject;
mod time_to_live;
mod together;

/// Makes a test of each behaviour, on the store that a function opens; where `$there` does not hold, it is skipped.
macro_rules! contract {
    ($open:path) => {
        $crate::store::contract::contract!($open, if $crate::store::contract::always);
    };
    ($open:path, if $there:path) => {
        $crate::store::contract::behaviours! { $open, $there:
            replies::replies_are_exact,
            replies::values_come_back_as_they_were,
            replies::names_are_any_text,
            replies::a_full_group_refuses_to_grow,
            mutations::mutations_take_effect_once,
            mutations::a_client_that_was_silent_for_longest_is_forgotten,
            mutations::clients_are_told_what_was_taken,
            changes::each_change_is_told_once_and_in_order,
            changes::what_changes_nothing_is_not_told,
            changes::values_are_told_where_they_are_wanted,
            changes::an_announced_change_is_told_and_ends_the_history,
            changes::timestamps_never_go_back,
            reading::a_group_is_listed_in_order_of_creation,
            reading::a_snapshot_is_of_one_moment,
            reading::groups_with_items_are_listed,
            reading::a_sync_is_between_what_was_and_what_comes,
            pages::pages_have_each_item_once,
            pages::a_page_ends_when_it_is_large,
            pages::a_page_of_one_item_has_it_or_nothing,
            resuming::what_was_missed_is_told,
            resuming::a_resume_beyond_the_history_is_none,
            resuming::an_item_that_did_not_change_has_no_age,
            resuming::a_resume_gives_what_one_can_use,
            time_to_live::an_item_goes_when_its_time_has_come,
            time_to_live::a_write_gives_time_anew,
            together::no_update_is_lost,
            together::a_condition_lets_one_of_many_through,
            together::compare_and_set_loses_nothing,
            together::calls_of_one_caller_keep_their_order,
            together::groups_do_not_mix,
            together::a_mutation_sent_by_many_takes_effect_once,
        }
    };
}

macro_rules! behaviours {
    ($open:path, $there:path: $($family:ident::$behaviour:ident,)*) => {
        $(
            #[test]
            fn $behaviour() {
                if $there() {
                    $crate::store::contract::$family::$behaviour(&$open);
                }
            }
        )*
    };
}

use {behaviours, contract};

/// A store that needs nothing of the machine.
fn always() -> bool {
    true
}
