//! What operations allocate, as the program that counts says.

use std::collections::BTreeMap;
use std::env;
use std::process::Command;

use crate::figures::Of;

/// Bytes and allocations.
pub(crate) type Memory = BTreeMap<Of, (u64, u64)>;

pub(crate) fn read() -> Memory {
    let program = env::current_exe().expect("a path").with_file_name("memory");
    let output = Command::new(program).output().expect("the program that counts, built with this one");
    String::from_utf8_lossy(&output.stdout).lines().map(|line| parse(line).expect("a line of figures")).collect()
}

/// A line of `measure/side/size: bytes allocations`.
fn parse(line: &str) -> Option<(Of, (u64, u64))> {
    let (of, figures) = line.rsplit_once(": ")?;
    let (bytes, allocations) = figures.split_once(' ')?;
    let mut parts = of.splitn(3, '/');
    let of = Of::new(parts.next()?, parts.next()?, parts.next()?.parse().ok()?);
    Some((of, (bytes.parse().ok()?, allocations.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_it_is_of() {
        let line = parse("any_of: make/ours/16: 1872 11");
        assert_eq!(line, Some((Of::new("any_of: make", "ours", 16), (1_872, 11))));
        assert_eq!(parse("any_of: make/ours: 1872 11"), None);
    }
}
