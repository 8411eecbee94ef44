//! What has to hold for whatever comes in through each door. A property panics where it does not.
//!
//! Each is run in two ways: `scripts/fuzz` gives it to libFuzzer under its name, and
//! `gateway/tests/properties` runs it over `seeds` and over what small changes make of them, so that
//! `cargo test` holds it too.

pub(crate) mod api_request;
pub(crate) mod backend_answer;
pub(crate) mod bus_document;
pub(crate) mod config_file;
pub(crate) mod delta;
pub(crate) mod emulation;
pub(crate) mod frame_decoder;
pub(crate) mod json_command;
pub(crate) mod key_set;
pub(crate) mod protobuf_command;
pub(crate) mod proxy_header;
pub(crate) mod redis_answer;
pub(crate) mod redis_record;
pub(crate) mod registry_record;
pub(crate) mod request_head;
pub(crate) mod token;

/// A property, under its name.
pub(crate) type Property = (&'static str, fn(&[u8]));

/// All of them.
pub(crate) const ALL: &[Property] = &[
    ("api_request", api_request::check),
    ("backend_answer", backend_answer::check),
    ("bus_document", bus_document::check),
    ("config_file", config_file::check),
    ("delta", delta::check),
    ("emulation", emulation::check),
    ("frame_decoder", frame_decoder::check),
    ("json_command", json_command::check),
    ("key_set", key_set::check),
    ("protobuf_command", protobuf_command::check),
    ("proxy_header", proxy_header::check),
    ("redis_answer", redis_answer::check),
    ("redis_record", redis_record::check),
    ("registry_record", registry_record::check),
    ("request_head", request_head::check),
    ("token", token::check),
];
