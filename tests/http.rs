//! Deadlines in headers.
#![cfg(feature = "http")]

use std::time::Duration;

use context_merge::Context;
use context_merge::http::TimeoutHeader::{self, Connect, Envoy, Grpc};
use context_merge::http::{extract, inject, inject_as};
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use tokio::time::{Instant, advance};

fn value(text: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(text).unwrap()
}

fn headers(all: &[(TimeoutHeader, &'static str)]) -> HeaderMap {
    all.iter().map(|(header, text)| (header.name(), value(text.as_bytes()))).collect()
}

#[test]
fn what_can_be_read() {
    let hour = Duration::from_secs(3600);
    for (header, text, left) in [
        (Grpc, "1H", hour),
        (Grpc, "2M", Duration::from_secs(120)),
        (Grpc, "00000003S", Duration::from_secs(3)),
        (Grpc, "4m", Duration::from_millis(4)),
        (Grpc, "5u", Duration::from_micros(5)),
        (Grpc, "6n", Duration::from_nanos(6)),
        (Grpc, "0S", Duration::ZERO),
        (Grpc, "99999999H", 99_999_999 * hour),
        (Connect, "0", Duration::ZERO),
        (Connect, "9999999999", Duration::from_millis(9_999_999_999)),
        (Envoy, "1500", Duration::from_millis(1500)),
    ] {
        assert_eq!(header.decode(&value(text.as_bytes())), Ok(left), "{text}");
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    for text in
        ["", "S", "5", "5s", "5h", "5x", "+5S", "-5S", " 5S", "5 S", "5S ", "5.0S", "123456789S", "0x5S", "5SS", "٥S"]
    {
        let err = Grpc.decode(&value(text.as_bytes())).unwrap_err();
        assert_eq!((err.header(), err.value()), (Grpc, &value(text.as_bytes())));
    }
    for text in ["", "5m", "+5", "-5", " 5", "5 ", "5.0", "12345678901", "1_000"] {
        for header in [Connect, Envoy] {
            assert!(header.decode(&value(text.as_bytes())).is_err(), "{text}");
        }
    }
    let err = extract(&headers(&[(Grpc, "1S"), (Connect, "soon")])).unwrap_err();
    assert_eq!(err.to_string(), "invalid connect-timeout-ms \"soon\": not one to ten digits");
    let err = Grpc.decode(&value(b"\xff\"")).unwrap_err();
    let expected = r#"invalid grpc-timeout "\xff\"": not one to eight digits and a unit of H, M, S, m, u or n"#;
    assert_eq!(err.to_string(), expected);
}

#[test]
fn what_is_written() {
    let seconds = Duration::from_secs;
    for (header, left, text) in [
        (Grpc, Duration::ZERO, "1n"),
        (Grpc, Duration::from_nanos(99_999_999), "99999999n"),
        (Grpc, Duration::from_nanos(100_000_999), "100000u"),
        (Grpc, seconds(99), "99000000u"),
        (Grpc, seconds(100), "100000m"),
        (Grpc, seconds(100_000), "100000S"),
        (Grpc, seconds(100_000_000), "1666666M"),
        (Grpc, seconds(6_000_000_000), "1666666H"),
        (Grpc, Duration::MAX, "99999999H"),
        (Connect, Duration::from_micros(999), "1"),
        (Connect, Duration::from_micros(1_999), "1"),
        (Envoy, Duration::from_millis(30_000), "30000"),
        (Envoy, Duration::MAX, "9999999999"),
    ] {
        assert_eq!(header.encode(left), text, "{left:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_counts_from_the_arrival() {
    let arrived = Instant::now();
    let deadline = extract(&headers(&[(Envoy, "30000"), (Grpc, "2S"), (Connect, "5000")])).unwrap();
    assert_eq!(deadline, Some(arrived + Duration::from_secs(2)), "the earliest");
    let ctx = Context::background().with_deadline(deadline.unwrap());
    advance(Duration::from_millis(500)).await;

    let mut sent = headers(&[(Grpc, "9H")]);
    inject(&ctx, &mut sent);
    inject_as(Connect, &ctx, &mut sent);
    assert_eq!(sent, headers(&[(Grpc, "1500000u"), (Connect, "1500")]), "in the place of what was there");

    advance(Duration::from_secs(2)).await;
    inject(&ctx, &mut sent);
    assert_eq!(sent["grpc-timeout"], "1n", "never zero");
}

#[tokio::test(start_paused = true)]
async fn none_and_no_time_at_all() {
    assert_eq!(extract(&HeaderMap::new()).unwrap(), None);
    let mut untouched = headers(&[(Grpc, "9H")]);
    inject(&Context::background(), &mut untouched);
    assert_eq!(untouched, headers(&[(Grpc, "9H")]));
    let at = extract(&headers(&[(Grpc, "0n")])).unwrap().unwrap();
    assert!(Context::background().with_deadline(at).is_done());
}

/// The seeds of the fuzz target `headers`.
#[test]
fn seeds() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seeds/headers");
    let seeds: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| std::fs::read(file.unwrap().path())).collect();
    let readable = |header: TimeoutHeader| {
        seeds.iter().filter(|seed| header.decode(&value(seed.as_ref().unwrap())).is_ok()).count()
    };
    assert_eq!(TimeoutHeader::ALL.map(readable), [5, 2, 2]);
}

proptest! {
    /// What is written can be read, is not longer, and loses less than a thousandth of a per cent, or a millisecond.
    #[test]
    fn written_and_read_again(bits: u64, shift in 0..64_u32, scale in 1..100_u32) {
        let left = Duration::from_nanos(bits >> shift) * scale;
        for header in TimeoutHeader::ALL {
            let read = header.decode(&header.encode(left)).unwrap();
            if left >= Duration::from_millis(1) && left <= Duration::from_millis(9_999_999_999) {
                prop_assert!(read <= left);
                let lost = (left - read).as_nanos();
                prop_assert!(lost < 1_000_000.max(left.as_nanos() / 100_000), "{header:?} {left:?} {read:?}");
            }
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(32_u8..=255, 0..14)) {
        let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
        for header in TimeoutHeader::ALL {
            if let Ok(left) = header.decode(&value) {
                prop_assert!(header.decode(&header.encode(left)).unwrap() <= left.max(Duration::from_millis(1)));
            }
        }
    }
}
