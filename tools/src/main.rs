//! handmill
fn main() {}
