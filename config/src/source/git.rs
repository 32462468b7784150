//! `git` as a source.

use crate::diagnostic::Problems;
use crate::keys::{Keys, boolean, choice};
use crate::model::{GitProvider, GitSource};
use crate::tree::Node;

use super::webhook::{KeyForm, read_secrets, warn_of_lengths};

pub(crate) const GIT_KEYS: &[&str] = &["provider", "secret", "secrets", "insecure"];
pub(crate) const PROVIDERS: &[(&str, GitProvider)] = &[
    ("auto", GitProvider::Auto),
    ("github", GitProvider::Github),
    ("gitlab", GitProvider::Gitlab),
    ("gitea", GitProvider::Gitea),
    ("forgejo", GitProvider::Forgejo),
    ("gogs", GitProvider::Gogs),
    ("bitbucket", GitProvider::Bitbucket),
];

pub(super) fn read(what: &str, node: &Node, problems: &mut Problems) -> Option<GitSource> {
    let keys = Keys::of(node, what, GIT_KEYS, problems)?;
    let provider = keys.get("provider").and_then(|node| choice("provider", node, PROVIDERS, problems));
    let insecure = keys.get("insecure").and_then(|node| boolean("insecure", node, problems)) == Some(true);
    let secret = keys.entry("secret").or(keys.entry("secrets"));
    let secrets = match (secret, insecure) {
        (Some(secret), true) => {
            problems.error(secret.key_at, "a secret and `insecure: true` exclude each other");
            return None;
        }
        (Some(_), false) => {
            let form = match provider {
                None | Some(GitProvider::Auto | GitProvider::Gitlab) => KeyForm::Gitlab,
                Some(
                    GitProvider::Github
                    | GitProvider::Gitea
                    | GitProvider::Forgejo
                    | GitProvider::Gogs
                    | GitProvider::Bitbucket,
                ) => KeyForm::Text,
            };
            warn_of_lengths(&keys, form, problems);
            read_secrets(what, &keys, node, problems)?
        }
        (None, true) => {
            problems.warning(
                node.at,
                format!("{what}: whoever reaches its URL can send events (`insecure: true`)"),
            );
            Vec::new()
        }
        (None, false) => {
            let message = format!(
                "{what} has no `secret`: without it whoever reaches its URL can send events; \
                 if that is meant, say `insecure: true`"
            );
            problems.error(node.at, message);
            return None;
        }
    };
    Some(GitSource { provider: provider.unwrap_or(GitProvider::Auto), secrets })
}
