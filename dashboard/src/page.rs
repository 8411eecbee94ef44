//! The page, embedded: the binary needs no file beside it.

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

struct File {
    name: &'static str,
    kind: &'static str,
    body: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! files {
    ($($name:literal: $kind:expr),* $(,)?) => {
        &[$(File { name: $name, kind: $kind, body: include_str!(concat!("page/", $name)) }),*]
    };
}

const FILES: &[File] = files! {
    "index.html": HTML,
    "style.css": CSS,
    "icon.svg": SVG,
    "app.js": JS,
    "banners.js": JS,
    "cards.js": JS,
    "detail.js": JS,
    "diagram.js": JS,
    "dom.js": JS,
    "format.js": JS,
    "history.js": JS,
    "live.js": JS,
    "spark.js": JS,
    "timeline.js": JS,
};

/// `/dashboard`.
pub(crate) async fn index(headers: HeaderMap) -> Response {
    file("index.html", &headers)
}

/// `/dashboard/{name}`.
pub(crate) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    file(&name, &headers)
}

fn file(name: &str, headers: &HeaderMap) -> Response {
    let Some(file) = FILES.iter().find(|file| file.name == name) else {
        return (StatusCode::NOT_FOUND, "not found\n").into_response();
    };
    // Asked again each time, sent again only by another build.
    let tag = format!("\"{}\"", fingerprint(file.body));
    let caching = [
        (header::CACHE_CONTROL, "no-cache".to_owned()),
        (header::ETAG, tag.clone()),
    ];
    let same = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|given| given.as_bytes() == tag.as_bytes());
    if same {
        return (StatusCode::NOT_MODIFIED, caching).into_response();
    }
    (caching, [(header::CONTENT_TYPE, file.kind)], file.body).into_response()
}

/// FNV-1a: tells builds apart, protects nothing.
fn fingerprint(body: &str) -> String {
    let hash = body.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_the_page_names_is_embedded() {
        let known = |name: &str| FILES.iter().any(|file| file.name == name);
        for file in FILES {
            for (at, mark) in file.body.match_indices("from \"./") {
                let rest = &file.body[at + mark.len()..];
                let name = rest.split('"').next().unwrap_or_default();
                assert!(known(name), "{} names {name}", file.name);
            }
            for (at, mark) in file.body.match_indices("\"/dashboard/") {
                let rest = &file.body[at + mark.len()..];
                let name = rest.split('"').next().unwrap_or_default();
                assert!(known(name), "{} names {name}", file.name);
            }
        }
    }

    #[test]
    fn nothing_is_inline_and_nothing_comes_from_elsewhere() {
        for file in FILES {
            let foreign = file
                .body
                .match_indices("://")
                .filter(|(at, _)| {
                    !file.body[..*at].ends_with("http")
                        || !file.body[*at..].starts_with("://www.w3.org/")
                })
                .filter(|(at, _)| !file.body[..*at].ends_with("redis"))
                .count();
            assert_eq!(foreign, 0, "{}", file.name);
            assert!(!file.body.contains("innerHTML"), "{}", file.name);
        }
        let index = FILES[0].body;
        assert!(!index.contains(" style=") && !index.contains(" onclick="));
        assert!(!index.contains("<script>") && !index.contains("<style"));
    }
}
