#![no_main]

#[path = "../properties/redis_answer.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| property::check(bytes));
