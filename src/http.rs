//! Deadlines on the wire (feature `http`): the time that a caller leaves is read from a request's headers on arrival, and
//! what remains of it is written into the requests made for it. And errors as the statuses that a caller is told.
//!
//! ```
//! use context_merge::Context;
//! use context_merge::http::{TimeoutHeader, extract, inject};
//! use http::HeaderMap;
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), context_merge::http::InvalidTimeout> {
//! let mut arrived = HeaderMap::new();
//! arrived.insert("grpc-timeout", "250m".parse().unwrap());
//! let ctx = match extract(&arrived)? {
//!     Some(at) => Context::background().with_deadline(at),
//!     None => Context::background(),
//! };
//!
//! let mut sent = HeaderMap::new();
//! inject(&ctx, &mut sent);
//! let left = TimeoutHeader::Grpc.decode(&sent["grpc-timeout"])?;
//! assert!(left < Duration::from_millis(250), "what remains");
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::time::Duration;

use crate::{Context, Error, ErrorKind};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::time::Instant;

/// A header that says how much time the caller leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TimeoutHeader {
    /// `grpc-timeout`: one to eight digits and a unit, from the
    /// [gRPC protocol](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
    Grpc,
    /// `connect-timeout-ms`: up to ten digits, milliseconds, from the
    /// [Connect protocol](https://connectrpc.com/docs/protocol).
    Connect,
    /// `x-envoy-expected-rq-timeout-ms`: milliseconds, set by the
    /// [Envoy proxy](https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/router_filter); up to ten
    /// digits are taken.
    Envoy,
}

/// The units of `grpc-timeout`, the finest first, in nanoseconds.
const UNITS: [(u8, u128); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60 * 1_000_000_000),
    (b'H', 3600 * 1_000_000_000),
];
const MILLISECOND: u128 = 1_000_000;
const GRPC_DIGITS: usize = 8;
const MS_DIGITS: usize = 10;

impl TimeoutHeader {
    /// All of them, in the order in which [`extract`] looks.
    pub const ALL: [TimeoutHeader; 3] = [TimeoutHeader::Grpc, TimeoutHeader::Connect, TimeoutHeader::Envoy];

    /// Its name, in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            TimeoutHeader::Grpc => "grpc-timeout",
            TimeoutHeader::Connect => "connect-timeout-ms",
            TimeoutHeader::Envoy => "x-envoy-expected-rq-timeout-ms",
        }
    }

    /// Its name as a key of a [`HeaderMap`].
    pub const fn name(self) -> HeaderName {
        HeaderName::from_static(self.as_str())
    }

    /// The value for `left`, rounded down to the finest unit that fits: never zero, which would be no time at all, and no
    /// more than the header can say.
    ///
    /// ```
    /// use context_merge::http::TimeoutHeader::{Connect, Grpc};
    /// use std::time::Duration;
    ///
    /// assert_eq!(Grpc.encode(Duration::from_millis(50)), "50000000n");
    /// assert_eq!(Grpc.encode(Duration::from_millis(1500)), "1500000u");
    /// assert_eq!(Grpc.encode(Duration::ZERO), "1n");
    /// assert_eq!(Connect.encode(Duration::from_micros(2999)), "2");
    /// ```
    pub fn encode(self, left: Duration) -> HeaderValue {
        let nanos = left.as_nanos();
        let (number, unit) = match self {
            TimeoutHeader::Grpc => {
                let most = largest(GRPC_DIGITS);
                let (unit, size) = UNITS.into_iter().find(|(_, size)| nanos / size <= most).unwrap_or(UNITS[5]);
                ((nanos / size).min(most), Some(unit))
            }
            TimeoutHeader::Connect | TimeoutHeader::Envoy => ((nanos / MILLISECOND).min(largest(MS_DIGITS)), None),
        };
        let mut text = number.max(1).to_string().into_bytes();
        text.extend(unit);
        HeaderValue::from_bytes(&text).expect("digits and a letter")
    }

    /// How much time `value` leaves.
    ///
    /// # Errors
    /// Where it is not digits, as many as the header may have, and for `grpc-timeout` one of its units. Signs, blanks and
    /// other units are not taken.
    pub fn decode(self, value: &HeaderValue) -> Result<Duration, InvalidTimeout> {
        let text = value.as_bytes();
        let decoded = match (self, text) {
            (TimeoutHeader::Grpc, [digits @ .., unit]) => {
                let size = UNITS.into_iter().find(|(letter, _)| letter == unit).map(|(_, size)| size);
                size.zip(number(digits, GRPC_DIGITS))
            }
            (TimeoutHeader::Grpc, []) => None,
            (TimeoutHeader::Connect | TimeoutHeader::Envoy, digits) => Some(MILLISECOND).zip(number(digits, MS_DIGITS)),
        };
        let (size, number) = decoded.ok_or_else(|| InvalidTimeout { header: self, value: value.clone() })?;
        let nanos = size * number;
        // At most ten digits of milliseconds, or eight of hours: both fit.
        let seconds = u64::try_from(nanos / 1_000_000_000).unwrap_or(u64::MAX);
        Ok(Duration::new(seconds, (nanos % 1_000_000_000) as u32))
    }
}

/// The largest number of so many digits.
const fn largest(digits: usize) -> u128 {
    10_u128.pow(digits as u32) - 1
}

fn number(digits: &[u8], most: usize) -> Option<u128> {
    let valid = (1..=most).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    valid.then(|| digits.iter().fold(0, |number, digit| number * 10 + u128::from(digit - b'0')))
}

/// The deadline that the headers of a request set, counted from now: the earliest where there are several, None where
/// there is none or it is too far away to represent. No time at all is a deadline that has passed.
///
/// Call it when the request arrives, and hand the instant on: a duration that is stored starts anew wherever it is used.
///
/// # Errors
/// Where a header that is there cannot be read.
pub fn extract(headers: &HeaderMap) -> Result<Option<Instant>, InvalidTimeout> {
    let now = Instant::now();
    let mut deadline = None;
    for header in TimeoutHeader::ALL {
        for value in headers.get_all(header.as_str()) {
            let at = now.checked_add(header.decode(value)?);
            deadline = deadline.into_iter().chain(at).min();
        }
    }
    Ok(deadline)
}

/// Writes what remains until the context's deadline as `grpc-timeout`, in the place of one that is there. A context
/// without a deadline leaves the headers as they are.
///
/// What has passed its deadline still writes the smallest time there is; look at [`Context::check`] before sending.
pub fn inject(ctx: &Context, headers: &mut HeaderMap) {
    inject_as(TimeoutHeader::Grpc, ctx, headers);
}

/// [`inject`] in the header that the other side reads.
pub fn inject_as(header: TimeoutHeader, ctx: &Context, headers: &mut HeaderMap) {
    if let Some(left) = ctx.remaining() {
        headers.insert(header.name(), header.encode(left));
    }
}

/// A timeout that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidTimeout {
    header: TimeoutHeader,
    value: HeaderValue,
}

impl InvalidTimeout {
    /// Which header it stood in.
    pub fn header(&self) -> TimeoutHeader {
        self.header
    }

    /// What stood there.
    pub fn value(&self) -> &HeaderValue {
        &self.value
    }
}

impl fmt::Display for InvalidTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expected = match self.header {
            TimeoutHeader::Grpc => "one to eight digits and a unit of H, M, S, m, u or n",
            TimeoutHeader::Connect | TimeoutHeader::Envoy => "one to ten digits",
        };
        let (header, value) = (self.header.as_str(), self.value.as_bytes().escape_ascii());
        write!(f, "invalid {header} \"{value}\": not {expected}")
    }
}

impl std::error::Error for InvalidTimeout {}

/// What an HTTP caller is told: 504 where the deadline was first, 503 where a cancel was.
pub fn status(err: &Error) -> StatusCode {
    match err.kind() {
        ErrorKind::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// What a gRPC caller is told, by its [number](https://grpc.io/docs/guides/status-codes/): 4 (deadline exceeded) where the
/// deadline was first, 1 (cancelled) where a cancel was. That the cancel was the server's shutdown, which is 14 (unavailable),
/// the layer of the server knows, and tells.
pub fn grpc_status(err: &Error) -> i32 {
    match err.kind() {
        ErrorKind::DeadlineExceeded => 4,
        ErrorKind::Cancelled => 1,
    }
}

/// What a caller is told in words: the kind of the error and nothing else. A cause may say more than a caller should know.
pub fn message(err: &Error) -> &'static str {
    match err.kind() {
        ErrorKind::DeadlineExceeded => "context deadline exceeded",
        ErrorKind::Cancelled => "context cancelled",
    }
}

/// The error and its cause in words, for a log. Not for a caller: see [`message`].
///
/// ```
/// use context_merge::{Context, http};
///
/// let (ctx, canceller) = Context::background().named("database").with_cancel();
/// canceller.cancel_with("no connection to db-7");
/// let err = ctx.err().unwrap();
/// assert_eq!(http::reason(&err), "context cancelled (database): no connection to db-7");
/// assert_eq!(http::message(&err), "context cancelled");
/// assert_eq!((http::status(&err).as_u16(), http::grpc_status(&err)), (503, 1));
/// ```
pub fn reason(err: &Error) -> String {
    match err.cause() {
        Some(cause) => format!("{err}: {cause}"),
        None => err.to_string(),
    }
}
