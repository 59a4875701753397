//! Timeouts in headers: anything is read or refused, and what is written again is read as no more time.
#![no_main]

use context_merge::http::TimeoutHeader;
use http::HeaderValue;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    for header in TimeoutHeader::ALL {
        match header.decode(&value) {
            Ok(left) => {
                let again = header.decode(&header.encode(left)).expect("what is written can be read");
                assert!(again <= left || left.as_millis() == 0);
            }
            Err(err) => assert!(err.to_string().contains(header.as_str())),
        }
    }
});
