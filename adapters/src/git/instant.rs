//! Times as hosts of repositories write them.

use jiff::Timestamp;
use jiff::fmt::strtime;

/// Reads RFC 3339, `2017-09-15 16:52:00 UTC` (GitLab), `2017-09-19T09:58:11+1000` (Bitbucket) and seconds since 1970 (GitHub, in
/// places), and writes RFC 3339.
pub(super) fn read(text: &str) -> Option<String> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Timestamp::from_second(text.parse().ok()?).ok().map(|instant| instant.to_string());
    }
    let instant = text.parse().ok().or_else(|| {
        let text = text.strip_suffix(" UTC").map(|text| format!("{text} +0000"));
        let text = text.as_deref()?;
        strtime::parse("%Y-%m-%d %H:%M:%S %z", text).ok()?.to_timestamp().ok()
    });
    let instant: Timestamp =
        instant.or_else(|| strtime::parse("%Y-%m-%dT%H:%M:%S%z", text).ok()?.to_timestamp().ok())?;
    Some(instant.to_string())
}

pub(super) fn of_millisecond(millisecond: i64) -> Option<String> {
    Timestamp::from_millisecond(millisecond).ok().map(|instant| instant.to_string())
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn times_of_every_host_become_rfc_3339() {
        for (text, expected) in [
            ("2019-05-15T15:20:24Z", Some("2019-05-15T15:20:24Z")),
            ("2019-05-15T15:20:24.5+02:00", Some("2019-05-15T13:20:24.5Z")),
            ("2017-09-15 16:52:00 UTC", Some("2017-09-15T16:52:00Z")),
            ("2016-08-12 15:23:28 +0200", None),
            ("2017-09-19T09:58:11+1000", Some("2017-09-18T23:58:11Z")),
            ("1557933565", Some("2019-05-15T15:19:25Z")),
            ("99999999999999999999", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(read(text).as_deref(), expected, "{text}");
        }
    }
}
