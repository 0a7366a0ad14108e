//! Grants for JavaScript: what the server lets a client do, by the server's own reading. What patterns mean is told in the core.

use iii_stream_core::{Ability, GroupRef};
use wasm_bindgen::prelude::*;

use crate::error::coded_error;

/// Everything that one client may do.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Grants {
    core: iii_stream_core::Grants,
}

#[wasm_bindgen]
impl Grants {
    /// Reads a list of grants, as JSON text.
    ///
    /// # Errors
    /// `grants_invalid`, for what the server would not take either.
    #[wasm_bindgen(constructor)]
    pub fn new(text: &str) -> Result<Self, JsValue> {
        let core = iii_stream_core::Grants::from_text(text);
        let core = core.map_err(|error| coded_error("grants_invalid", &error.to_string()))?;
        Ok(Self { core })
    }

    /// Whether an ability is granted for an item; without one, for all items of the group.
    ///
    /// # Errors
    /// `ability_unknown`.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "an optional string can cross the border by value only"
    )]
    pub fn may(
        &self,
        ability: &str,
        stream: &str,
        group: &str,
        item: Option<String>,
    ) -> Result<bool, JsValue> {
        let ability = match ability {
            "read" => Ability::Read,
            "set" => Ability::Set,
            "update" => Ability::Update,
            "delete" => Ability::Delete,
            "send" => Ability::Send,
            _ => {
                let message = "there are the abilities read, set, update, delete and send";
                return Err(coded_error("ability_unknown", message));
            }
        };
        let group = GroupRef { stream, group };
        Ok(self.core.may(ability, group, item.as_deref()))
    }
}
