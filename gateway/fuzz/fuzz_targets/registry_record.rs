#![no_main]

#[path = "../properties/registry_record.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| property::check(bytes));
