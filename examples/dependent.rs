//! Two operations that are worth nothing alone: the failure of one ends the other, which learns it as the cause.
//!
//! Where it is enough to drop the other, `tokio::try_join!` does that. Here it has something to undo.

use std::error::Error as StdError;
use std::time::Duration;

use context_merge::{Canceller, Context, Error};

pub(crate) type Failure = Box<dyn StdError + Send + Sync>;

pub(crate) const STEP: Duration = Duration::from_millis(100);

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut shelf = vec!["kettle", "cups", "tea"];
    let order = both(&Context::background(), pay, async |ctx| pack(ctx, &mut shelf).await).await;
    match order {
        Ok(((), parcel)) => println!("sent {parcel:?}"),
        Err(err) => println!("not sent: {err}: {:?}", err.cause()),
    }
    println!("on the shelf: {shelf:?}");
}

/// Runs both at once. The first failure cancels the context of both, and is the cause of the error.
pub(crate) async fn both<T, U>(
    ctx: &Context,
    one: impl AsyncFnOnce(&Context) -> Result<T, Failure>,
    other: impl AsyncFnOnce(&Context) -> Result<U, Failure>,
) -> Result<(T, U), Error> {
    let (ctx, canceller) = ctx.with_cancel();
    match tokio::join!(or_cancel(one(&ctx), &canceller), or_cancel(other(&ctx), &canceller)) {
        (Some(one), Some(other)) => Ok((one, other)),
        // Done already: by a failure, or by what was before it.
        _ => Err(ctx.done().await),
    }
}

async fn or_cancel<T>(work: impl Future<Output = Result<T, Failure>>, canceller: &Canceller) -> Option<T> {
    work.await.map_err(|failure| canceller.cancel_with(failure)).ok()
}

async fn pay(ctx: &Context) -> Result<(), Failure> {
    ctx.sleep(STEP * 3 / 2).await?;
    Err("the card was declined".into())
}

/// Packs an item with each step. Where it cannot finish, it puts back what it has packed.
pub(crate) async fn pack(ctx: &Context, shelf: &mut Vec<&'static str>) -> Result<Vec<&'static str>, Failure> {
    let mut parcel = Vec::new();
    while let Some(item) = shelf.pop() {
        parcel.push(item);
        println!("packed: {item}");
        if let Err(err) = ctx.sleep(STEP).await {
            println!("unpacking {} items: {:?}", parcel.len(), err.cause());
            shelf.extend(parcel.into_iter().rev());
            return Err(err.into());
        }
    }
    Ok(parcel)
}
