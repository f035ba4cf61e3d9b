//! Names of models: `[HOST/][NAMESPACE/]MODEL[:TAG]`, and the path of the manifest that a name stands for.
//!
//! Every part begins with a letter, a digit or an underscore and holds nothing but letters, digits and `_ - .` (a host
//! also `:`), so that no part can be `..`, be hidden, or hold a separator: a name cannot leave the store's folder.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::Error;

/// The host of names that give none: models that came from no registry.
const HOST: &str = "local";
/// The namespace of names that give none.
const NAMESPACE: &str = "library";
/// The tag of names that give none.
const TAG: &str = "latest";

const LONGEST_HOST: usize = 255;
const LONGEST_PART: usize = 80;

/// A model's name, whole and in lower case: names that differ only in case are the same.
///
/// Prints without the parts that are default, but always with the tag; what is printed parses to the same name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    host: String,
    namespace: String,
    model: String,
    tag: String,
}

impl Name {
    /// The manifest's path below the folder of manifests.
    pub fn path(&self) -> PathBuf {
        [&self.host, &self.namespace, &self.model, &self.tag].iter().collect()
    }

    /// The name whose manifest lies at these path components; none where they are not what [`Name::path`] makes.
    pub fn from_path(parts: [&str; 4]) -> Option<Name> {
        let [host, namespace, model, tag] = parts;
        let name = Name::new(host, namespace, model, tag).ok()?;
        (name.host == host && name.namespace == namespace && name.model == model && name.tag == tag).then_some(name)
    }

    fn new(host: &str, namespace: &str, model: &str, tag: &str) -> Result<Name, &'static str> {
        if !valid(host, LONGEST_HOST, "_-.:") {
            return Err(
                "the host must be 1 to 255 letters, digits, '_', '-', '.' or ':', beginning with a letter, digit or '_'",
            );
        }
        if !valid(namespace, LONGEST_PART, "_-") {
            return Err(
                "the namespace must be 1 to 80 letters, digits, '_' or '-', beginning with a letter, digit or '_'",
            );
        }
        if !valid(model, LONGEST_PART, "_-.") {
            return Err(
                "the model must be 1 to 80 letters, digits, '_', '-' or '.', beginning with a letter, digit or '_'",
            );
        }
        if !valid(tag, LONGEST_PART, "_-.") {
            return Err(
                "the tag must be 1 to 80 letters, digits, '_', '-' or '.', beginning with a letter, digit or '_'",
            );
        }
        let [host, namespace, model, tag] = [host, namespace, model, tag].map(str::to_ascii_lowercase);
        Ok(Name { host, namespace, model, tag })
    }
}

/// Whether `part` follows the grammar: its first character a letter, digit or `_`, the others also any of `also`.
fn valid(part: &str, longest: usize, also: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    part.len() <= longest && part.starts_with(plain) && part.chars().all(|c| plain(c) || also.contains(c))
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Name, Error> {
        let wrong = |why| Error::Name { found: text.to_string(), why };
        let (path, last) = match text.rsplit_once('/') {
            Some((path, last)) => (Some(path), last),
            None => (None, text),
        };
        let (model, tag) = last.split_once(':').unwrap_or((last, TAG));
        let (host, namespace) = match path {
            None => (HOST, NAMESPACE),
            Some(path) => path.split_once('/').unwrap_or((HOST, path)),
        };
        Name::new(host, namespace, model, tag).map_err(wrong)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host != HOST {
            write!(f, "{}/", self.host)?;
        }
        if self.host != HOST || self.namespace != NAMESPACE {
            write!(f, "{}/", self.namespace)?;
        }
        write!(f, "{}:{}", self.model, self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::{Component, Path};

    fn printed(text: &str) -> String {
        text.parse::<Name>().unwrap().to_string()
    }

    #[test]
    fn defaults_and_case() {
        assert_eq!(printed("smollm2"), "smollm2:latest");
        assert_eq!(printed("Gemma3:270M"), "gemma3:270m");
        assert_eq!(printed("me/mine"), "me/mine:latest");
        assert_eq!(printed("local/library/x:y"), "x:y");
        assert_eq!(printed("host.example:5000/me/mine:q4_k.m"), "host.example:5000/me/mine:q4_k.m");
        assert_eq!("x".parse::<Name>().unwrap().path(), Path::new("local/library/x/latest"));
    }

    #[test]
    fn refused() {
        let long = "a".repeat(81);
        let refused = [
            "",
            ":",
            "a:",
            ":b",
            "/",
            "a/",
            "/a",
            "a//b",
            "..",
            "../a",
            "a/..",
            "a:..",
            "a/../b",
            ".hidden",
            "a:.b",
            "-a",
            "a/b/c/d",
            "a\\b",
            "a b",
            "a\0",
            "a\n",
            "é",
            "a:b:c",
            "a.b/c",
            "a/b:c/d",
            "%2e%2e",
            "a/b/c:d/e",
            "~",
            "C:\\x",
            long.as_str(),
        ];
        for text in refused {
            assert!(text.parse::<Name>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn foreign_paths() {
        assert!(Name::from_path(["local", "library", "x", "latest"]).is_some());
        assert!(Name::from_path(["local", "library", "X", "latest"]).is_none());
        assert!(Name::from_path(["local", "..", "x", "latest"]).is_none());
    }

    proptest! {
        #[test]
        fn any_text_stays_inside(text in "[a-zA-Z0-9_./:\\\\~ -]{0,40}|.{0,40}") {
            if let Ok(name) = text.parse::<Name>() {
                let path = name.path();
                prop_assert_eq!(path.components().count(), 4);
                prop_assert!(path.components().all(|c| matches!(c, Component::Normal(_))));
                prop_assert_eq!(name.to_string().parse::<Name>().unwrap(), name);
            }
        }

        #[test]
        fn round_trip(host in "[a-z0-9_][a-z0-9_.:-]{0,30}", space in "[a-z0-9_][a-z0-9_-]{0,20}",
                      model in "[a-z0-9_][a-z0-9_.-]{0,20}", tag in "[a-z0-9_][a-z0-9_.-]{0,20}") {
            let name = Name::new(&host, &space, &model, &tag).unwrap();
            prop_assert_eq!(name.to_string().parse::<Name>().unwrap(), name.clone());
            let path = name.path();
            let parts: Vec<_> = path.iter().map(|p| p.to_str().unwrap()).collect();
            prop_assert_eq!(Name::from_path(parts.try_into().unwrap()), Some(name));
        }
    }
}
