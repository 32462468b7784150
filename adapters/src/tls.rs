//! What servers show when they are connected to.

/// A reason for which there is no connection, with more words where the library has only a name for it.
pub fn explained(reason: String) -> String {
    match reason.contains("CaUsedAsEndEntity") {
        true => format!(
            "{reason}: the certificate of the server is an authority's own (CA:TRUE), not a server's; `openssl req -x509` makes one \
             with `-addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:HOST`"
        ),
        false => reason,
    }
}
