//! Writes the inputs to begin with to `corpus/TARGET/`, those of the generators anew; what the fuzzer found stays as it is.

use std::io;

use weir_fuzz::{TARGETS, corpus};

fn main() -> io::Result<()> {
    for target in &TARGETS {
        let directory = corpus(target);
        std::fs::create_dir_all(&directory)?;
        let seeds = (target.seeds)();
        for (name, bytes) in &seeds {
            std::fs::write(directory.join(name), bytes)?;
        }
        println!("{}: {} inputs", target.name, seeds.len());
    }
    Ok(())
}
