#![no_main]

#[path = "../properties/frame_decoder.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| property::check(bytes));
