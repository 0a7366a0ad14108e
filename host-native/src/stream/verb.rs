//! Which of the eight functions, and what they are called.

/// Which of the functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `stream::set`
    Set,
    /// `stream::get`
    Get,
    /// `stream::delete`
    Delete,
    /// `stream::update`
    Update,
    /// `stream::list`
    List,
    /// `stream::list_groups`
    ListGroups,
    /// `stream::list_all`
    ListAll,
    /// `stream::send`
    Send,
}

pub(super) const VERBS: [(Verb, &str); 8] = [
    (Verb::Set, "stream::set"),
    (Verb::Get, "stream::get"),
    (Verb::Delete, "stream::delete"),
    (Verb::Update, "stream::update"),
    (Verb::List, "stream::list"),
    (Verb::ListGroups, "stream::list_groups"),
    (Verb::ListAll, "stream::list_all"),
    (Verb::Send, "stream::send"),
];

impl Verb {
    /// Whether it changes nothing and tells nobody.
    pub fn only_reads(self) -> bool {
        match self {
            Self::Get | Self::List | Self::ListGroups | Self::ListAll => true,
            Self::Set | Self::Delete | Self::Update | Self::Send => false,
        }
    }

    /// What custom storage calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Get => "get",
            Self::Delete => "delete",
            Self::Update => "update",
            Self::List => "list",
            Self::ListGroups => "list_groups",
            Self::ListAll => "list_all",
            Self::Send => "send",
        }
    }

    /// The code of an error of the store. Source: stream functions, section 2.
    pub(super) fn store_error_code(self) -> &'static str {
        match self {
            Self::Set => "STREAM_SET_ERROR",
            Self::Get => "STREAM_GET_ERROR",
            Self::Delete => "STREAM_DELETE_ERROR",
            Self::Update => "STREAM_UPDATE_ERROR",
            Self::List => "STREAM_GET_GROUP_ERROR",
            Self::ListGroups => "STREAM_LIST_GROUPS_ERROR",
            Self::ListAll => "STREAM_LIST_ALL_ERROR",
            Self::Send => "STREAM_SEND_ERROR",
        }
    }
}
