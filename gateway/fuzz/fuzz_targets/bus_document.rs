#![no_main]

#[path = "../properties/bus_document.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| property::check(bytes));
