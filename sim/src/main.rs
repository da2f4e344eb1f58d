//! `cache-sim`: parse the arguments, run, print.

fn main() {}
