//! The fuzzer: libFuzzer's `main`, and the two functions that it calls. `WEIR_FUZZ` names the target. Started by `fuzz.sh`.
#![no_main]

use std::sync::OnceLock;

use weir_fuzz::{Target, find};

static TARGET: OnceLock<&'static Target> = OnceLock::new();

/// Called once. A panic has to end the process, or libFuzzer would take it for an input like any other.
#[unsafe(no_mangle)]
extern "C" fn LLVMFuzzerInitialize(_argc: *mut i32, _argv: *mut *mut *mut u8) -> i32 {
    let say = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        say(panic);
        std::process::abort();
    }));
    let name = std::env::var("WEIR_FUZZ").unwrap_or_default();
    let Some(target) = find(&name) else {
        eprintln!("WEIR_FUZZ={name}: there is no such target");
        std::process::exit(2);
    };
    let _first = TARGET.set(target);
    0
}

/// Called with every input.
#[unsafe(no_mangle)]
extern "C" fn LLVMFuzzerTestOneInput(data: *const u8, size: usize) -> i32 {
    // SAFETY: libFuzzer passes `size` bytes that it does not touch until this returns; with `size` 0 nothing is read, but the
    // pointer may be null.
    let input = if size == 0 {
        &[]
    } else {
        unsafe { std::slice::from_raw_parts(data, size) }
    };
    if let Some(target) = TARGET.get() {
        (target.run)(input);
    }
    0
}
