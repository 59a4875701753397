//! A transaction that ends with its context, and whose commit nothing interrupts. The recipe "A database" of RECIPES.md.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use context_merge::Context;
use tokio_postgres::{CancelToken, Client, Config, NoTls};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A statement, until the context finishes: then it is cancelled in the server, and the context's error is told. The client is
/// not used again after that: a cancel may still be on its way.
pub(crate) async fn statement<T>(
    ctx: &Context,
    running: &CancelToken,
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, BoxError> {
    ctx.check()?;
    let mut work = pin!(work);
    let err = match ctx.run(work.as_mut()).await {
        // By a statement_timeout at that instant, say: the context says more.
        Ok(done) => return done.map_err(|failed| ctx.err().map_or(failed.into(), Into::into)),
        Err(err) => err,
    };
    // More than once, since a cancel that is there before the statement is of no effect; and not for ever.
    for _ in 0..10 {
        let wait = Context::background().with_timeout(Duration::from_millis(100));
        let cancelled = async {
            let _ = running.cancel_query(NoTls).await;
            work.as_mut().await.map(drop)
        };
        if wait.run(cancelled).await.is_ok() {
            break;
        }
    }
    Err(err.into())
}

/// Moves `amount`. Dropping this waits no longer; the transaction goes on to its end, which is a rollback where the context
/// finishes before the commit begins.
pub(crate) async fn transfer(
    ctx: Context,
    mut client: Client,
    from: i64,
    to: i64,
    amount: i64,
) -> Result<(), BoxError> {
    let shielded = tokio::spawn(async move {
        let running = client.cancel_token();
        let transaction = client.transaction().await?;
        let take = "UPDATE account SET balance = balance - $2 WHERE id = $1";
        statement(&ctx, &running, transaction.execute(take, &[&from, &amount])).await?; // an error drops it: a rollback
        let give = "UPDATE account SET balance = balance + $2 WHERE id = $1";
        statement(&ctx, &running, transaction.execute(give, &[&to, &amount])).await?;
        ctx.check()?; // the last moment to stop: nothing cancels the commit
        Ok(transaction.commit().await?)
    });
    shielded.await?
}

/// Accounts in a schema of their own, which is dropped in the end.
#[derive(Clone)]
pub(crate) struct Accounts {
    config: Config,
    schema: String,
}

impl Accounts {
    /// None where `DATABASE_URL` is not set.
    pub(crate) async fn open(name: &str) -> Result<Option<Accounts>, BoxError> {
        let Ok(url) = std::env::var("DATABASE_URL") else { return Ok(None) };
        let mut config: Config = url.parse()?;
        let schema = format!("context_merge_{name}_{}", std::process::id());
        connect(&config).await?.batch_execute(&format!("CREATE SCHEMA {schema}")).await?;
        config.options(format!("-c search_path={schema}")).application_name(&schema);
        let accounts = "CREATE TABLE account (id bigint PRIMARY KEY, balance bigint NOT NULL);
                        INSERT INTO account SELECT id, 0 FROM generate_series(0, 99) AS id";
        connect(&config).await?.batch_execute(accounts).await?;
        Ok(Some(Accounts { config, schema }))
    }

    pub(crate) async fn connect(&self) -> Result<Client, BoxError> {
        connect(&self.config).await
    }

    /// One from the bank, account 0, to another one.
    pub(crate) async fn pay(&self, ctx: Context, to: i64) -> Result<(), BoxError> {
        let client = ctx.run(self.connect()).await??;
        transfer(ctx, client, 0, 1 + to % 99, 1).await
    }

    /// What was paid, and the sum of all balances, which is always zero.
    pub(crate) async fn close(self) -> Result<(i64, i64), BoxError> {
        let client = self.connect().await?;
        let row = client.query_one("SELECT -min(balance), sum(balance)::bigint FROM account", &[]).await?;
        client.batch_execute(&format!("DROP SCHEMA {} CASCADE", self.schema)).await?;
        Ok((row.get(0), row.get(1)))
    }
}

async fn connect(config: &Config) -> Result<Client, BoxError> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
