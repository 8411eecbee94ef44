//! One file a part. Each case is measured with ours first, then with each crate that does the same work.

pub(crate) mod fanout;
pub(crate) mod json;
pub(crate) mod mailbox;
pub(crate) mod protobuf;
pub(crate) mod ring;
pub(crate) mod websocket;
pub(crate) mod wheel;

use std::hint::black_box;

use crate::harness::{OURS, case};
use crate::protocol::{Publication, Push, Tags, WireFormat};

/// Where publications are published, and their offset there.
const CHANNEL: &str = "news:sport";
const OFFSET: u64 = 1234;

/// Data of a publication: JSON of about a hundred bytes, as a ticker publishes it.
const TICK: &str = r#"{"symbol":"FLUX","bid":101.25,"ask":101.27,"at":1732221661.25,"text":"a line of text as chats are"}"#;

/// Data of a publication of about a kilobyte, most of it text.
fn article() -> String {
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(21);
    format!(r#"{{"title":"news","views":12345,"tags":["a","b"],"text":"{text}"}}"#)
}

/// Ours of the cases that put a publication into a wire format; it is left in `out`.
fn encode_publication(name: &str, format: WireFormat, data: &str, out: &mut Vec<u8>) {
    case(name, OURS, 500, 1, || {
        out.clear();
        let publication = Publication {
            data: data.as_bytes(),
            info: None,
            offset: OFFSET,
            tags: Tags::NONE,
            delta: false,
        };
        let push = Push::Publication {
            channel: CHANNEL,
            publication,
        };
        format.push(out, black_box(&push));
        black_box(&out);
    });
}
