//! `ckpt-dump`: a running process becomes an executable.

fn main() {
    eprintln!("ckpt-dump: not there yet");
    std::process::exit(1);
}
