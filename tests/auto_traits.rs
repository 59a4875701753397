//! Which auto traits the public types have: losing one breaks callers. The work and the services here have all of them
//! themselves, or as [`Local`] none, so that what is missing is ours.

use std::cell::Cell;
use std::future::{Ready, ready};
use std::marker::PhantomData;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::rc::Rc;

use context_merge::{
    Canceller, Context, Done, DoneOwned, DropGuard, Error, ErrorKind, Explanation, Finished, Group, OnDone, Run,
    StreamWithContext, WithContext,
};

/// Unpin alone.
type Local = Ready<Rc<Cell<u8>>>;

#[allow(dead_code, reason = "of some traits every type has its own")]
trait Otherwise {
    const HAS: bool = false;
}

/// Whether `$type` has `$trait`: an inherent constant comes before one of a trait, where its bound holds.
macro_rules! has {
    ($type:ty, $trait:ident) => {{
        #[allow(dead_code, reason = "carries the type")]
        struct Is<T>(PhantomData<T>);
        impl<T> Otherwise for Is<T> {}
        #[allow(dead_code, reason = "where the bound does not hold")]
        impl<T: $trait> Is<T> {
            const HAS: bool = true;
        }
        Is::<$type>::HAS
    }};
}

/// A line for each type, with the traits that it has.
macro_rules! table {
    ($($type:ty: $($trait:ident)*;)*) => { $({
        let found = [
            ("Send", has!($type, Send)),
            ("Sync", has!($type, Sync)),
            ("Unpin", has!($type, Unpin)),
            ("UnwindSafe", has!($type, UnwindSafe)),
            ("RefUnwindSafe", has!($type, RefUnwindSafe)),
        ];
        let found: Vec<_> = found.into_iter().filter_map(|(name, has)| has.then_some(name)).collect();
        let promised: &[&str] = &[$(stringify!($trait)),*];
        assert_eq!(found, promised, "{}", stringify!($type));
    })* };
}

fn is_static<T: 'static>() {}

#[test]
fn of_contexts_and_what_they_tell() {
    table! {
        Context: Send Sync Unpin UnwindSafe RefUnwindSafe;
        Canceller: Send Sync Unpin UnwindSafe RefUnwindSafe;
        DropGuard: Send Sync Unpin UnwindSafe RefUnwindSafe;
        Error: Send Sync Unpin UnwindSafe RefUnwindSafe;
        ErrorKind: Send Sync Unpin UnwindSafe RefUnwindSafe;
        Explanation: Send Sync Unpin UnwindSafe RefUnwindSafe;
        OnDone: Send Sync Unpin;
    }
    table! { Group<Cell<u8>>: Send Sync Unpin UnwindSafe RefUnwindSafe; Group<Rc<u8>>: Unpin UnwindSafe RefUnwindSafe; }
    is_static::<(Context, Canceller, DropGuard, Error, ErrorKind, Explanation, Group<Rc<u8>>, OnDone)>();
}

/// They hold the futures of foreign signals, which are no more than `Send`.
#[test]
fn of_what_waits() {
    table! {
        Done<'_>: Send Unpin;
        DoneOwned: Send Unpin;
        Finished: Send Unpin;
        Run<'_, Ready<u8>>: Send Unpin;
        Run<'_, Local>: Unpin;
        WithContext<Ready<u8>>: Send Unpin;
        WithContext<Local>: Unpin;
        StreamWithContext<Ready<u8>>: Send Unpin;
        StreamWithContext<Local>: Unpin;
    }
    is_static::<(DoneOwned, Finished, WithContext<Local>, StreamWithContext<Local>)>();
}

/// What `async fn`s of ours hold across an await.
#[test]
fn of_the_future_of_sleep() {
    fn is_send<T: Send>(future: T) {
        drop(future);
    }
    is_send(Context::background().sleep(std::time::Duration::ZERO));
    is_send(async { ready(Context::background().check()).await });
}

#[cfg(feature = "http")]
#[test]
fn of_headers() {
    use context_merge::http::{InvalidTimeout, TimeoutHeader};
    table! {
        TimeoutHeader: Send Sync Unpin UnwindSafe RefUnwindSafe;
        InvalidTimeout: Send Sync Unpin UnwindSafe RefUnwindSafe;
    }
    is_static::<(TimeoutHeader, InvalidTimeout)>();
}

#[cfg(feature = "shutdown")]
#[test]
fn of_a_shutdown() {
    use context_merge::shutdown::{Shutdown, Unfinished};
    table! {
        Shutdown: Send Sync Unpin UnwindSafe RefUnwindSafe;
        Unfinished: Send Sync Unpin UnwindSafe RefUnwindSafe;
    }
    is_static::<(Shutdown, Unfinished)>();
}

#[cfg(feature = "axum")]
#[test]
fn of_the_rejection() {
    use context_merge::axum::MissingContext;
    table! { MissingContext: Send Sync Unpin UnwindSafe RefUnwindSafe; }
    is_static::<MissingContext>();
}

/// A layer for servers holds a function of the caller's, which is no more than `Send + Sync`.
#[cfg(feature = "tower")]
#[test]
fn of_layers() {
    use bytes::Bytes;
    use http_body_util::{Full, combinators::UnsyncBoxBody};
    use std::rc::Rc;

    use context_merge::tower::{
        Answer, CallFuture, ContextBody, ContextLayer, ContextService, Ended, Propagate, PropagateLayer, ReadAhead,
        ReadAheadLayer, ResponseFuture, ServerContext,
    };
    table! {
        Ended: Send Sync Unpin UnwindSafe RefUnwindSafe;
        ContextLayer: Send Sync Unpin;
        ContextService<u8>: Send Sync Unpin;
        ContextService<Local>: Unpin;
        ResponseFuture<Ready<u8>>: Send Unpin;
        ResponseFuture<Local>: Unpin;
        PropagateLayer: Send Sync Unpin UnwindSafe RefUnwindSafe;
        Propagate<u8>: Send Sync Unpin;
        Propagate<Local>: Unpin;
        CallFuture<Ready<u8>>: Send Unpin;
        CallFuture<Local>: Unpin;
        ContextBody<Full<Bytes>>: Send Unpin;
        ContextBody<UnsyncBoxBody<Bytes, Rc<u8>>>: Unpin;
        Answer: Send Sync Unpin UnwindSafe RefUnwindSafe;
        ServerContext: Send Sync Unpin;
        ReadAheadLayer: Send Sync Unpin UnwindSafe RefUnwindSafe;
        ReadAhead<u8>: Send Sync Unpin UnwindSafe RefUnwindSafe;
        ReadAhead<Local>: Unpin;
    }
    is_static::<(Ended, ContextLayer, ContextService<Local>, ResponseFuture<Local>)>();
    is_static::<(PropagateLayer, Propagate<Local>, CallFuture<Local>, ContextBody<Full<Bytes>>)>();
}

#[cfg(feature = "tonic")]
#[test]
fn of_streams_of_statuses() {
    use context_merge::tonic::UntilDone;
    table! {
        UntilDone<Ready<u8>>: Send Unpin;
        UntilDone<Local>: Unpin;
    }
    is_static::<UntilDone<Local>>();
}
