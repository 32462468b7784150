//! What makes two events the same: digests of key and content.

use sluice_adapters::Aside;
use sluice_schemas::Event;

use super::record::Digest;

/// Of entry point, source and id: the key of a duplicate.
pub fn key(via: &str, event: &Event) -> Digest {
    digest(&[via.as_bytes(), event.source().as_bytes(), event.id().as_bytes()])
}

/// Of type, subject, content type and data: what must be equal in a duplicate.
pub fn content(event: &Event) -> Digest {
    let present = |text: Option<&str>| [u8::from(text.is_some())];
    let (subject, content_type) = (event.subject(), event.datacontenttype());
    digest(&[
        event.ty().as_bytes(),
        &present(subject),
        subject.unwrap_or_default().as_bytes(),
        &present(content_type),
        content_type.unwrap_or_default().as_bytes(),
        &[u8::from(event.data().is_some())],
        event.data().map(|data| &*data.bytes).unwrap_or_default(),
    ])
}

/// Of all that a source received at a position: the same again is the same record, and not only one like it.
pub fn aside(source: &str, aside: &Aside) -> Digest {
    let Aside { record, size, .. } = aside;
    let mut parts: Vec<&[u8]> = vec![source.as_bytes(), record.position.as_bytes()];
    for part in [record.key.as_deref(), record.body.as_deref()] {
        parts.extend([if part.is_some() { b"1" } else { b"0" }, part.unwrap_or_default()]);
    }
    let size = size.to_le_bytes();
    parts.push(&size);
    // RabbitMQ counts in a header how often it delivered.
    let headers = record.headers.iter().filter(|(name, _)| name != "x-delivery-count");
    parts.extend(headers.flat_map(|(name, value)| [name.as_bytes(), value]));
    digest(&parts)
}

fn digest(parts: &[&[u8]]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    Digest(bytes)
}
