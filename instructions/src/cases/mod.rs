//! One file a part. Each case is measured with ours first, then with each crate that does the same work.

pub(crate) mod fanout;
pub(crate) mod json;
pub(crate) mod mailbox;
pub(crate) mod protobuf;
pub(crate) mod ring;
pub(crate) mod websocket;
pub(crate) mod wheel;

/// Data of a publication: JSON of about a hundred bytes, as a ticker publishes it.
const TICK: &str = r#"{"symbol":"FLUX","bid":101.25,"ask":101.27,"at":1732221661.25,"text":"a line of text as chats are"}"#;

/// Data of a publication of about a kilobyte, most of it text.
fn article() -> String {
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(21);
    format!(r#"{{"title":"news","views":12345,"tags":["a","b"],"text":"{text}"}}"#)
}
