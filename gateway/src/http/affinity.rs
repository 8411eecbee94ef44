//! The affinity key `sid`: from the query, else from the cookie `flux_sid`. It never decides correctness, so a bad one
//! is no error: it is as if there were none.

use std::borrow::Cow;

use super::query;

/// Longest affinity key, in bytes as sent. A longer one is ignored.
pub const SID_BYTES_MAX: usize = 256;

const COOKIE: &str = "flux_sid";

/// The value of `sid` in a query (without its `?`), percent-decoded.
pub(super) fn from_query(query: &str) -> Option<Cow<'_, str>> {
    query::raw(query, "sid")
        .and_then(acceptable)
        .and_then(query::percent_decode)
}

/// The value of the cookie in one `Cookie` field.
pub(super) fn from_cookie(field: &[u8]) -> Option<&str> {
    std::str::from_utf8(field)
        .ok()?
        .split(';')
        .filter_map(|pair| pair.split_once('='))
        .find(|(name, _)| name.trim() == COOKIE)
        .and_then(|(_, value)| {
            let value = value.trim();
            acceptable(
                value
                    .strip_prefix('"')
                    .and_then(|value| value.strip_suffix('"'))
                    .unwrap_or(value),
            )
        })
}

fn acceptable(value: &str) -> Option<&str> {
    (!value.is_empty() && value.len() <= SID_BYTES_MAX).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query() {
        let long = format!("sid={}", "x".repeat(SID_BYTES_MAX + 1));
        let cases = [
            ("", None),
            ("sid=abc", Some("abc")),
            ("cf_ws_frame_ping_pong=true&sid=abc&x=1", Some("abc")),
            ("sid=first&sid=second", Some("first")),
            ("sid=", None),
            ("sid", None),
            ("xsid=abc", None),
            ("sid=a%20b%2Fc+d", Some("a b/c d")),
            ("sid=%", None),
            ("sid=%4", None),
            ("sid=%zz", None),
            ("sid=%ff", None),
            (&long, None),
        ];
        for (query, expected) in cases {
            assert_eq!(from_query(query).as_deref(), expected, "{query}");
        }
    }

    #[test]
    fn cookie() {
        let cases: [(&[u8], Option<&str>); 6] = [
            (b"flux_sid=abc", Some("abc")),
            (b"a=b; flux_sid=abc; c=d", Some("abc")),
            (b"a=b;flux_sid=\"abc\"", Some("abc")),
            (b"xflux_sid=abc", None),
            (b"flux_sid=", None),
            (b"flux_sid=\xff", None),
        ];
        for (field, expected) in cases {
            assert_eq!(from_cookie(field), expected);
        }
    }
}
