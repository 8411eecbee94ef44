#![no_main]

#[path = "../properties/proxy_header.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| property::check(bytes));
