//! Who may call the server API. Pure.

use axum::extract::Query;
use axum::http::{HeaderMap, Uri, header};
use serde::Deserialize;
use subtle::ConstantTimeEq;

/// The header that carries the key.
pub const KEY_HEADER: &str = "x-api-key";
/// What stands before the key in `Authorization`.
const SCHEME: &str = "apikey";

/// Who is let in.
#[derive(Clone)]
pub enum Access {
    /// Everybody (`http_api.insecure`).
    Everybody,
    /// Whoever shows the key.
    Key(String),
    /// Nobody: there is no key.
    Nobody,
}

impl std::fmt::Debug for Access {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Everybody => "Everybody",
            Self::Key(_) => "Key",
            Self::Nobody => "Nobody",
        })
    }
}

impl Access {
    /// By the keys `http_api.key` and `http_api.insecure`.
    #[must_use]
    pub fn new(key: &str, insecure: bool) -> Self {
        if insecure {
            Self::Everybody
        } else if key.is_empty() {
            Self::Nobody
        } else {
            Self::Key(key.to_owned())
        }
    }

    /// Whether this request is let in: by `X-API-Key`, else `Authorization: apikey K`, else
    /// `?api_key=K`. Takes the same time whatever is wrong with a key of the right length.
    #[must_use]
    pub fn allows(&self, headers: &HeaderMap, uri: &Uri) -> bool {
        let key = match self {
            Self::Everybody => return true,
            Self::Nobody => return false,
            Self::Key(key) => key,
        };
        let shown = shown_in(headers).or_else(|| in_query(uri));
        shown.is_some_and(|shown| shown.as_bytes().ct_eq(key.as_bytes()).into())
    }
}

fn shown_in(headers: &HeaderMap) -> Option<String> {
    if let Some(key) = headers.get(KEY_HEADER) {
        return Some(key.to_str().ok()?.to_owned());
    }
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case(SCHEME)
        .then(|| key.trim().to_owned())
}

fn in_query(uri: &Uri) -> Option<String> {
    #[derive(Deserialize)]
    struct Keyed {
        api_key: Option<String>,
    }
    Query::<Keyed>::try_from_uri(uri).ok()?.0.api_key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(access: &Access, fields: &[(&'static str, &str)], uri: &str) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.insert(*name, value.parse().expect("a value"));
        }
        access.allows(&headers, &uri.parse().expect("a URI"))
    }

    #[test]
    fn the_key_is_taken_from_any_of_its_three_places_and_no_other_lets_in() {
        let access = Access::new("k1 y", false);
        let plain = "/api/publish";
        assert!(allows(&access, &[("x-api-key", "k1 y")], plain));
        assert!(allows(&access, &[("authorization", "apikey k1 y")], plain));
        assert!(allows(&access, &[("authorization", "ApiKey k1 y")], plain));
        assert!(allows(&access, &[], "/api/publish?x=1&api_key=k1%20y"));
        for (fields, uri) in [
            (&[][..], plain),
            (&[("x-api-key", "")], plain),
            (&[("x-api-key", "k1")], plain),
            (&[("x-api-key", "k2 y")], plain),
            (&[("authorization", "Bearer k1 y")], plain),
            (&[("authorization", "k1 y")], plain),
            (&[], "/api/publish?api_key="),
            // A wrong key is not made good by a right one elsewhere.
            (&[("x-api-key", "no")], "/api/publish?api_key=k1%20y"),
        ] {
            assert!(!allows(&access, fields, uri), "{fields:?} {uri}");
        }
        assert!(!format!("{access:?}").contains("k1"));
    }

    #[test]
    fn without_a_key_nobody_is_let_in_unless_everybody_is() {
        let nobody = Access::new("", false);
        assert!(!allows(&nobody, &[("x-api-key", "")], "/api/info"));
        assert!(!allows(&nobody, &[], "/api/info?api_key="));
        assert!(allows(&Access::new("", true), &[], "/api/info"));
    }
}
