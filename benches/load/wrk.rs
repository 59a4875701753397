//! wrk, which sends the requests: each connection is kept, and has one request on its way.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub(crate) const CONNECTIONS: usize = 64;
const THREADS: usize = 2;

pub(crate) fn is_there() -> bool {
    // It says its version, and then that it wants an address.
    Command::new("wrk").arg("-v").output().is_ok()
}

/// What it says at its end.
pub(crate) struct Said {
    /// Requests a second.
    pub(crate) rate: f64,
    pub(crate) p99: Duration,
}

/// Begins to send for so many seconds.
pub(crate) fn start(port: u16, seconds: u64) -> Child {
    let mut wrk = Command::new("wrk");
    wrk.arg(format!("-t{THREADS}")).arg(format!("-c{CONNECTIONS}")).arg(format!("-d{seconds}s")).arg("--latency");
    wrk.arg(format!("http://127.0.0.1:{port}/")).stdout(Stdio::piped()).spawn().expect("wrk")
}

pub(crate) fn finish(wrk: Child) -> Said {
    let output = wrk.wait_with_output().expect("wrk to end");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    read(&text).unwrap_or_else(|why| panic!("{why}: {text}"))
}

fn read(text: &str) -> Result<Said, &'static str> {
    let line = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
    if line("Socket errors:").is_some() || line("Non-2xx or 3xx responses:").is_some() {
        return Err("not every request was answered");
    }
    let rate = line("Requests/sec:").and_then(|rate| rate.parse().ok()).ok_or("no rate")?;
    let p99 = line("99%").and_then(time).ok_or("no p99")?;
    Ok(Said { rate, p99 })
}

/// As in `1.25ms`.
fn time(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|letter: char| letter.is_ascii_alphabetic())?);
    let number: f64 = number.parse().ok()?;
    let seconds = match unit {
        "us" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        "m" => number * 60.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "Running 1s test @ http://127.0.0.1:1/
  2 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     0.85ms  454.51us   9.16ms   72.05%
    Req/Sec    36.99k     2.82k   43.39k    75.00%
  Latency Distribution
     50%  776.00us
     99%    2.25ms
  73623 requests in 1.00s, 9.06MB read
Requests/sec:  73593.01
Transfer/sec:      9.05MB
";

    #[test]
    fn what_wrk_says_is_read() {
        let said = read(SAID).unwrap();
        assert_eq!((said.rate, said.p99), (73593.01, Duration::from_micros(2_250)));
        assert_eq!(time("776.00us"), Some(Duration::from_micros(776)));
        assert_eq!(time("1.50s"), Some(Duration::from_millis(1_500)));
        assert_eq!(time("1.50h"), None);
    }

    #[test]
    fn requests_that_failed_fail_the_run() {
        assert!(read(&format!("{SAID}  Non-2xx or 3xx responses: 1\n")).is_err());
        assert!(read(&format!("{SAID}  Socket errors: connect 0, read 1, write 0, timeout 0\n")).is_err());
        assert!(read("").is_err());
    }
}
