//! The recipe of a database against a real PostgreSQL: `just postgres` starts one.
#![cfg(all(feature = "axum", feature = "tonic", feature = "shutdown"))]

use std::time::Duration;

use context_merge::{Context, Error};
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

#[path = "../examples/service/database.rs"]
mod database;

use database::{Accounts, statement, transfer};

const LATER: Duration = Duration::from_millis(300);

/// Accounts, and a connection that looks at them from outside; None where there is no database.
async fn open(name: &str) -> Option<(Accounts, Client)> {
    let Some(accounts) = Accounts::open(name).await.unwrap() else {
        println!("left out: no DATABASE_URL, which `just postgres` sets");
        return None;
    };
    let outside = accounts.connect().await.unwrap();
    // Crediting account 2 takes a minute; that of account 3 a second, in the commit.
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN PERFORM pg_sleep(TG_ARGV[0]::int); RETURN NEW; END';
                CREATE TRIGGER slow BEFORE UPDATE ON account
                FOR EACH ROW WHEN (NEW.id = 2) EXECUTE FUNCTION slow(60);
                CREATE CONSTRAINT TRIGGER slow_commit AFTER UPDATE ON account DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW WHEN (NEW.id = 3) EXECUTE FUNCTION slow(1)";
    outside.batch_execute(slow).await.unwrap();
    Some((accounts, outside))
}

/// How many others execute a statement with `what` in it.
async fn active(outside: &Client, what: &str) -> i64 {
    let count = "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND state = 'active'
                 AND application_name = current_setting('application_name') AND query LIKE '%' || $1 || '%'";
    outside.query_one(count, &[&what]).await.unwrap().get(0)
}

/// The server tells an error just before it counts as idle.
async fn until(outside: &Client, what: &str, count: i64) {
    let began = Instant::now();
    while active(outside, what).await != count {
        assert!(began.elapsed() < Duration::from_secs(10), "{what}: not {count} in time");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn balance(outside: &Client, id: i64) -> i64 {
    outside.query_one("SELECT balance FROM account WHERE id = $1", &[&id]).await.unwrap().get(0)
}

fn of_context(err: Box<dyn std::error::Error + Send + Sync>) -> Error {
    *err.downcast().unwrap_or_else(|err| panic!("not the context's: {err:?}"))
}

#[tokio::test]
async fn a_transfer_moves() {
    let Some((accounts, outside)) = open("moves").await else { return };
    transfer(Context::background(), accounts.connect().await.unwrap(), 0, 1, 5).await.unwrap();
    assert_eq!((balance(&outside, 0).await, balance(&outside, 1).await), (-5, 5));
    assert_eq!(accounts.close().await.unwrap(), (5, 0));
}

#[tokio::test]
async fn a_deadline_ends_the_statement_and_is_the_error() {
    let Some((accounts, outside)) = open("deadline").await else { return };
    let client = accounts.connect().await.unwrap();
    let ctx = Context::background().named("limit").with_timeout(LATER);
    let at = ctx.deadline().unwrap();
    let task = tokio::spawn(transfer(ctx, client, 0, 2, 5));
    until(&outside, "UPDATE account", 1).await;
    let err = of_context(task.await.unwrap().unwrap_err());
    assert!(err.is_deadline_exceeded() && err.origin() == Some("limit"), "{err:?}");
    assert!(at.elapsed() < Duration::from_secs(5));
    // It was cancelled, a minute before its end, and its transaction is rolled back: no lock is held.
    until(&outside, "UPDATE account", 0).await;
    assert_eq!((balance(&outside, 0).await, balance(&outside, 2).await), (0, 0));
    transfer(Context::background(), accounts.connect().await.unwrap(), 0, 1, 1).await.unwrap();
    accounts.close().await.unwrap();
}

#[tokio::test]
async fn a_cancel_ends_the_statement_and_is_the_error() {
    let Some((accounts, outside)) = open("cancel").await else { return };
    let (ctx, hang_up) = Context::background().named("request").with_cancel();
    let task = tokio::spawn(transfer(ctx, accounts.connect().await.unwrap(), 0, 2, 5));
    until(&outside, "UPDATE account", 1).await;
    hang_up.cancel_with("the client has gone");
    let err = of_context(task.await.unwrap().unwrap_err());
    assert_eq!((err.origin(), err.cause().unwrap().to_string().as_str()), (Some("request"), "the client has gone"));
    until(&outside, "UPDATE account", 0).await;
    assert_eq!((balance(&outside, 0).await, balance(&outside, 2).await), (0, 0));
    accounts.close().await.unwrap();
}

/// A cancel that is there before its statement is of no effect; it is sent again.
#[tokio::test]
async fn a_cancel_that_races_the_start_is_sent_again() {
    let Some((accounts, outside)) = open("races").await else { return };
    for after in 0..20 {
        let client = accounts.connect().await.unwrap();
        let ctx = Context::background().with_timeout(Duration::from_micros(100 * after));
        let began = Instant::now();
        let work = client.batch_execute("SELECT pg_sleep(60)");
        let err = of_context(statement(&ctx, &client.cancel_token(), work).await.unwrap_err());
        assert!(err.is_deadline_exceeded() && began.elapsed() < Duration::from_secs(5));
        until(&outside, "pg_sleep(60)", 0).await;
    }
    accounts.close().await.unwrap();
}

/// What is done before it begins is never sent.
#[tokio::test]
async fn nothing_begins_under_a_finished_context() {
    let Some((accounts, outside)) = open("finished").await else { return };
    let (ctx, canceller) = Context::background().with_cancel();
    canceller.cancel();
    let client = accounts.connect().await.unwrap();
    let work = client.batch_execute("UPDATE account SET balance = 7 WHERE id = 1");
    assert!(of_context(statement(&ctx, &client.cancel_token(), work).await.unwrap_err()).is_cancelled());
    assert_eq!(balance(&outside, 1).await, 0);
    accounts.close().await.unwrap();
}

/// The server's own timer is set to the same time, as is good practice: whichever is faster, one error is told.
#[tokio::test]
async fn a_statement_timeout_at_the_deadline_tells_the_deadline() {
    let Some((accounts, _)) = open("timer").await else { return };
    let client = accounts.connect().await.unwrap();
    let running = client.cancel_token();
    client.batch_execute("SET statement_timeout = 30").await.unwrap();
    for _ in 0..10 {
        let ctx = Context::background().with_timeout(Duration::from_millis(30));
        // Has the runtime look at both at once, after both have happened.
        let work = async {
            let slept = client.batch_execute("SELECT pg_sleep(60)").await;
            std::thread::sleep(ctx.remaining().unwrap());
            slept
        };
        assert!(of_context(statement(&ctx, &running, work).await.unwrap_err()).is_deadline_exceeded());
    }
    // And a failure of its own stays one.
    let ctx = Context::background().with_timeout(Duration::from_secs(60));
    let failed = statement(&ctx, &running, client.batch_execute("SELECT 1/0")).await.unwrap_err();
    assert!(failed.downcast::<tokio_postgres::Error>().unwrap().as_db_error().is_some());
    accounts.close().await.unwrap();
}

#[tokio::test]
async fn a_cancel_does_not_reach_a_commit() {
    let Some((accounts, outside)) = open("commit").await else { return };
    let (ctx, hang_up) = Context::background().with_cancel();
    let task = tokio::spawn(transfer(ctx, accounts.connect().await.unwrap(), 0, 3, 5));
    until(&outside, "COMMIT", 1).await;
    assert!(hang_up.cancel());
    task.await.unwrap().unwrap();
    assert_eq!((balance(&outside, 0).await, balance(&outside, 3).await), (-5, 5));
    accounts.close().await.unwrap();
}

#[tokio::test]
async fn a_handler_that_is_dropped_does_not_break_a_commit() {
    let Some((accounts, outside)) = open("dropped").await else { return };
    let handler = tokio::spawn(transfer(Context::background(), accounts.connect().await.unwrap(), 0, 3, 5));
    until(&outside, "COMMIT", 1).await;
    handler.abort();
    assert!(handler.await.unwrap_err().is_cancelled());
    until(&outside, "COMMIT", 0).await;
    assert_eq!((balance(&outside, 0).await, balance(&outside, 3).await), (-5, 5));
    accounts.close().await.unwrap();
}

#[tokio::test]
async fn paying_ends_with_its_context() {
    let Some((accounts, outside)) = open("paying").await else { return };
    accounts.pay(Context::background(), 0).await.unwrap();
    let err = of_context(accounts.pay(Context::background().with_timeout(Duration::ZERO), 0).await.unwrap_err());
    assert!(err.is_deadline_exceeded());
    assert_eq!(balance(&outside, 1).await, 1);
    accounts.close().await.unwrap();
}
