//! Resident memory over many requests, each with a merge: sampled at every tenth, and not allowed to grow.

use std::thread;
use std::time::Duration;

use crate::server::Server;
use crate::table::markdown;
use crate::wrk;

const REQUESTS: u64 = 10_000_000;
/// New connections after so many seconds, as a server sees them come and go.
const SECONDS: u64 = 10;
/// By how many kilobytes memory may grow from the first half of the samples to the second: a byte for five requests.
const MARGIN: u64 = 1_024;

/// The samples as a table, and what is wrong with them.
pub(crate) fn measure() -> (String, Option<String>) {
    let mut server = Server::start("contexts");
    let mut samples = vec![(0, server.resident())];
    while server.ask("requests") < REQUESTS {
        let mut wrk = wrk::start(server.port, SECONDS);
        while wrk.try_wait().expect("wrk").is_none() {
            sample(&mut server, &mut samples);
            thread::sleep(Duration::from_millis(20));
        }
        wrk::finish(wrk);
        sample(&mut server, &mut samples);
    }
    let mut lines = vec![["requests", "resident"].map(String::from).to_vec()];
    lines.extend(samples.iter().map(|(requests, resident)| vec![requests.to_string(), format!("{resident} kB")]));
    let table = markdown(&lines);
    (format!("Resident memory of the server with contexts:\n\n{table}"), grown(&samples))
}

/// Adds one when another tenth is through.
fn sample(server: &mut Server, samples: &mut Vec<(u64, u64)>) {
    let requests = server.ask("requests");
    let tenths = samples.len() as u64;
    if tenths <= 10 && requests >= REQUESTS / 10 * tenths {
        samples.push((requests, server.resident()));
    }
}

/// Medians, since a sample has what connections and the allocator keep at that moment; without the first one, of a server
/// that has seen no request.
fn grown(samples: &[(u64, u64)]) -> Option<String> {
    let resident: Vec<u64> = samples[1..].iter().map(|(_, resident)| *resident).collect();
    let (first, second) = resident.split_at(resident.len() / 2);
    let (first, second) = (median(first), median(second));
    (second > first + MARGIN).then(|| format!("GROWN: from {first} kB in the first half to {second} kB in the second"))
}

fn median(samples: &[u64]) -> u64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_past_the_margin_is_told() {
        let samples = |resident: [u64; 7]| resident.map(|kilobytes| (0, kilobytes));
        assert_eq!(grown(&samples([1, 5_000, 5_000, 9_000, 5_900, 6_000, 9_000])), None);
        let grown = grown(&samples([1, 5_000, 5_000, 5_000, 6_100, 6_100, 5_000]));
        assert_eq!(grown.unwrap(), "GROWN: from 5000 kB in the first half to 6100 kB in the second");
    }
}
