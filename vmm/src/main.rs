//! Trapgate command line.
fn main() {}
