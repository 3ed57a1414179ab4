//! The catalogue of operations: what a name is called today, what it acts on, and how.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde::Deserialize;

/// `resource_category` of an operation that is not in the catalogue, or of none.
pub(super) const UNKNOWN: &str = "unknown";

#[derive(Deserialize)]
struct Entry {
    operation: &'static str,
    canonical: &'static str,
    category: &'static str,
}

/// An operation of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Operation {
    /// Its name today.
    pub(super) canonical: &'static str,
    /// What it acts on.
    pub(super) category: &'static str,
    /// See [`action`].
    pub(super) action: &'static str,
}

static CATALOGUE: LazyLock<HashMap<&'static str, Operation>> = LazyLock::new(|| {
    let entries: Vec<Entry> =
        serde_json::from_str(include_str!("operations.json")).expect("the catalogue is part of the program");
    let operation = |entry: Entry| {
        let action = action(entry.canonical);
        (entry.operation, Operation { canonical: entry.canonical, category: entry.category, action })
    };
    entries.into_iter().map(operation).collect()
});

/// By the exact name, else without the suffix `API` of older documentation.
#[inline]
pub(super) fn look_up(name: &str) -> Option<Operation> {
    let catalogue = &*CATALOGUE;
    catalogue.get(name).or_else(|| catalogue.get(name.strip_suffix("API")?)).copied()
}

/// The verb that a canonical name begins with, in lower case.
pub(super) fn action(canonical: &str) -> &'static str {
    const VERBS: [(&str, &str); 11] = [
        ("Create", "create"),
        ("Update", "update"),
        ("Delete", "delete"),
        ("Set", "set"),
        ("Add", "add"),
        ("Remove", "remove"),
        ("Rename", "rename"),
        ("Failover", "failover"),
        ("Validate", "validate"),
        ("Invite", "invite"),
        ("Change", "change"),
    ];
    if canonical.ends_with("Login") {
        return "login";
    }
    // `Settle…` does not begin with the verb `Set`.
    let is_verb = |rest: &str| !rest.starts_with(|next: char| next.is_lowercase());
    VERBS
        .iter()
        .find(|(verb, _)| canonical.strip_prefix(verb).is_some_and(is_verb))
        .map_or("other", |(_, action)| *action)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_of_the_catalogue_leads_to_a_canonical_name_that_is_an_entry_itself() {
        assert_eq!(CATALOGUE.len(), 77);
        for operation in CATALOGUE.values() {
            assert_eq!(look_up(operation.canonical).unwrap().canonical, operation.canonical);
            assert_ne!(operation.category, UNKNOWN);
        }
    }

    #[test]
    fn the_exact_name_comes_before_the_name_without_its_suffix() {
        assert_eq!(look_up("CreateAPIKey").unwrap().canonical, "CreateApiKey");
        assert_eq!(look_up("CreateNexusEndpointAPI").unwrap().canonical, "CreateNexusEndpoint");
        assert_eq!(look_up("UpdateAccountAPI").unwrap().canonical, "UpdateAccount");
        assert_eq!(look_up("API"), None);
        assert_eq!(look_up("createapikey"), None, "names are not case-folded");
    }

    #[test]
    fn the_action_is_the_leading_verb_as_a_word() {
        for (name, expected) in [
            ("UserLogin", "login"),
            ("SetUserNamespaceAccess", "set"),
            ("Set", "set"),
            ("SettleInvoice", "other"),
            ("AddressBook", "other"),
            ("FailoverNamespace", "failover"),
            ("RotateEncryptionKey", "other"),
            ("createNamespace", "other"),
            ("", "other"),
        ] {
            assert_eq!(action(name), expected, "{name}");
        }
    }
}
