//! The target `batch`: see the function of that name.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| zue_fuzz::batch(input));
